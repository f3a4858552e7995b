"""Where an ERMoE layer's time goes, and what ``torch.compile`` cannot take in.

    python benchmarks/moe_profile.py --what profile graphs

``profile``: operations of a layer by their own time (torch.profiler). ``graphs``:
graphs and graph breaks of every layer in evaluation without gradients, with the reasons.
"""

from __future__ import annotations

import argparse

import torch
from moe_layer import CONSOLE, layer_of, runner, sections
from rich.table import Table


def profile(mode: str) -> None:
    """Operations of an ERMoE layer by their own time."""
    shape = sections(quick=False)["routers"][0][1]
    run = runner("ermoe", layer_of("ermoe shared", shape), shape, "balanced", "float32", mode)
    run()
    with torch.profiler.profile() as profiler:
        run()
    CONSOLE.print(f"ERMoE, shared, {mode}")
    CONSOLE.print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=14))


def graphs() -> None:
    """Graphs and breaks of every layer under ``torch.compile``, in evaluation without gradients."""
    shape = sections(quick=True)["routers"][0][1]
    table = Table("layer", "graphs", "breaks", "reasons", title="torch.compile, evaluation")
    for name in ("ermoe shared", "ermoe joint", "emoe", "vmoe", "cosine", "soft", "dense"):
        x = torch.randn(shape["batch"], shape["tokens"], shape["dim"])
        torch._dynamo.reset()
        with torch.no_grad():
            found = torch._dynamo.explain(layer_of(name, shape).eval())(x, x)
        reasons = sorted({reason.reason.splitlines()[0][:90] for reason in found.break_reasons})
        table.add_row(name, str(found.graph_count), str(found.graph_break_count), "; ".join(reasons))
    CONSOLE.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", nargs="*", default=["profile", "graphs"])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if "profile" in arguments.what:
        for mode in ("evaluation", "training"):
            profile(mode)
    if "graphs" in arguments.what:
        graphs()


if __name__ == "__main__":
    main()
