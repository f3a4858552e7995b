"""Where an ERMoE layer's time goes, what ``torch.compile`` cannot take in, what ``grouped_mm`` would bring.

    python benchmarks/moe_profile.py --what profile graphs grouped

``profile``: operations of a layer by their own time (torch.profiler). ``graphs``: graphs and graph breaks of
every layer in evaluation without gradients, with the reasons. ``grouped``: the products of all experts with
their slices of tokens, one by one and by ``torch.nn.functional.grouped_mm``, at the sizes of
``moe_layer.py``; medians of seven, taking turns.
"""

from __future__ import annotations

import argparse
import statistics

import torch
import torch.nn.functional as F
from moe_layer import CONSOLE, layer_of, runner, seconds, sections
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


def grouped(rounds: int = 7) -> None:
    """Expert products over contiguous slices: a loop beside ``grouped_mm``."""
    shape = sections(quick=False)["routers"][0][1]
    count, dim, hidden = shape["experts"], shape["dim"], shape["hidden"]
    rows = shape["batch"] * shape["tokens"] * shape["top_k"] // count
    ends = torch.arange(1, count + 1, dtype=torch.int32) * rows
    table = Table("dtype", "loop, ms", "grouped_mm, ms", "ratio", title="products of all experts")
    for dtype in (torch.float32, torch.bfloat16):
        x, weights = torch.randn(count * rows, dim, dtype=dtype), torch.randn(count, dim, hidden, dtype=dtype)
        y = x.new_empty(count * rows, hidden)

        def loop(x: torch.Tensor = x, weights: torch.Tensor = weights, y: torch.Tensor = y) -> None:
            for slice_x, weight, slice_y in zip(x.split(rows), weights.unbind(), y.split(rows), strict=True):
                torch.mm(slice_x, weight, out=slice_y)

        def together(x: torch.Tensor = x, weights: torch.Tensor = weights) -> None:
            F.grouped_mm(x, weights, offs=ends)

        loop(), together()
        times = [(seconds(loop), seconds(together)) for _ in range(rounds)]
        ratio = statistics.median(b / a for a, b in times)
        milliseconds = [f"{1e3 * statistics.median(column):.1f}" for column in zip(*times, strict=True)]
        table.add_row(str(dtype).removeprefix("torch."), *milliseconds, f"{ratio:.2f}")
    CONSOLE.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", nargs="*", default=["profile", "graphs", "grouped"])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if "profile" in arguments.what:
        for mode in ("evaluation", "training"):
            profile(mode)
    if "graphs" in arguments.what:
        graphs()
    if "grouped" in arguments.what:
        grouped()


if __name__ == "__main__":
    main()
