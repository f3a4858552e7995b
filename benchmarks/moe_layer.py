"""Time of every mixture-of-experts layer beside a dense network of the same active products.

    python benchmarks/moe_layer.py --json docs/results/moe_layer.json --figure docs/moe_layer.png
    python benchmarks/moe_layer.py --quick                 # a small layer, one round: does it run
    python benchmarks/moe_profile.py                       # where the time goes, and graph breaks

Sections (``--sections``): ``routers``, all layers at T = 8 * 197 tokens, D = 384, H = 1536, E = 8, K = 2,
with balanced load in float32; ``skewed``, the same with a skewed load; ``bfloat16``, both loads under
autocast; ``experts``, E from 8 to 64 at R = D / E; ``tokens``, T from 2 * 197 to 8 * 1200; ``maps``, what
orthonormality costs: an ERMoE beside the same layer with free matrices. A section that is run replaces its
own part of the JSON file alone, and the figure is drawn from the file.

Each layer is measured in evaluation (forward without gradients) and in training (forward and backward). The
layers of a comparison take turns; a round's ratio is of neighbouring measurements, and medians over the
rounds are reported. With ``--threads 1`` the processor's time counts, which other processes on the machine
disturb less; else the wall's. ``same products`` is the ratio to a dense network with as many multiplications
per token as the layer does, projections and router included; ``width K H`` that to a dense network of that
width. The masked layer is an ERMoE that runs every expert on every token and weighs the outputs by the
gates, 0 or not.

The load is set by a prior that leaves K random experts open to each token, drawn evenly or with a share that
falls by half from expert to expert ("skewed"). ``soft`` has no load to set and is measured without a prior.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from brainage.files import replacing, write_json
from brainage.nn import ERMoE, make_moe
from brainage.nn.dense_layer import DenseLayer

Row = dict[str, Any]
CONSOLE = Console(width=150, highlight=False)
COUPLINGS = ("shared", "joint", "independent")


class MaskedERMoE(nn.Module):
    """The ``shared`` ERMoE as it is often written: all experts on all tokens, times gates, mostly 0."""

    def __init__(self, layer: ERMoE) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x_BND: Tensor, context_BND: Tensor, prior_NE: Tensor | None = None) -> Tensor:
        experts, hidden = self.layer.experts, self.layer.experts.hidden
        z_TD, x_TER, context_TER = experts.project(x_BND.flatten(0, 1), context_BND.flatten(0, 1))
        scores = self.layer.score(x_TER, context_TER).unflatten(0, x_BND.shape[:2])
        gates_TE = self.layer.select(scores, prior_NE).gates_BNE.flatten(0, 1)
        parts = zip(
            hidden.first_left() * hidden.first_spectrum_EC.unsqueeze(1),
            hidden.bias_EH,
            hidden.second_right() * hidden.second_spectrum_EC.unsqueeze(1),
            experts.bias_ED,
            gates_TE.unbind(1),
            strict=True,
        )
        y_TD = sum(
            gate.unsqueeze(1) * F.linear(F.gelu(F.linear(z_TD, first, bias)), second.mT, second_bias)
            for first, bias, second, second_bias, gate in parts
        )
        return (y_TD @ experts.writing()[0].T).view_as(x_BND)


def layer_of(name: str, shape: Row) -> nn.Module:
    """A layer by the benchmark's name for it."""
    sizes = {"dim": shape["dim"], "num_experts": shape["experts"], "hidden_dim": shape["hidden"]}
    kind, _, variant = name.partition(" ")
    if kind == "masked":
        return MaskedERMoE(layer_of("ermoe shared", shape))
    if kind == "soft":
        slots = -(-shape["tokens"] * shape["top_k"] // shape["experts"])
        return make_moe("soft", slots_per_expert=slots, **sizes)
    settings: Row = {"top_k": shape["top_k"]}
    if kind in ("ermoe", "emoe"):
        settings["rank"] = shape["dim"] // shape["experts"]
    if kind == "ermoe":
        coupling, _, free = variant.partition(" ")
        settings |= {"coupling": coupling, "threshold": -1.0, "orthogonalization": free or "cayley"}
    return make_moe(kind, **sizes, **settings)


def products_per_token(name: str, shape: Row) -> int:
    """Multiplications of the matrix products that a token takes part in."""
    dim, hidden, count, chosen = shape["dim"], shape["hidden"], shape["experts"], shape["top_k"]
    kind, _, variant = name.partition(" ")
    rank, expert = dim // count, 2 * dim * hidden
    if kind == "soft":  # logits, and reading and writing the slots of its sequence
        return chosen * expert + 3 * dim * shape["tokens"] * chosen
    if kind in ("ermoe", "masked"):
        if variant.startswith(("joint", "independent")):
            return 2 * dim * count * rank + chosen * (2 * rank * hidden + rank * dim)
        return 2 * dim * dim + dim * count * rank + (count if kind == "masked" else chosen) * expert
    router = {"vmoe": dim * count, "cosine": (dim + count) * max(count // 2, 2), "emoe": (dim + count) * rank}
    return chosen * expert + router.get(kind, 0)


def prior_of(load: str, shape: Row) -> Tensor:
    """K random experts open to each token: a prior (B, N, E) of ones and zeros."""
    share = torch.ones(shape["experts"]) if load == "balanced" else 0.5 ** torch.arange(shape["experts"])
    share = share.clamp(min=1e-3)  # beyond the tenth expert all are equally rare
    draw = torch.Generator().manual_seed(0)
    rows = shape["batch"] * shape["tokens"]
    chosen = torch.multinomial(share.expand(rows, -1), shape["top_k"], generator=draw)
    prior = torch.zeros(rows, shape["experts"]).scatter_(1, chosen, 1.0)
    return prior.view(shape["batch"], shape["tokens"], -1)


def runner(name: str, layer: nn.Module, shape: Row, load: str, dtype: str, mode: str) -> Callable[[], None]:
    """One measurement: a forward pass in evaluation, or forward and backward in training."""
    draw = torch.Generator().manual_seed(1)
    x, context = torch.randn(2, shape["batch"], shape["tokens"], shape["dim"], generator=draw).unbind()
    prior = None if name.startswith("soft") else prior_of(load, shape)
    gradient = torch.randn(x.shape, generator=draw)
    training = mode == "training"

    def run() -> None:
        layer.train(training)
        with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16, dtype == "bfloat16"):
            y = layer(x, context, prior)
        if training:
            layer.zero_grad()
            y.backward(gradient)

    if not training:  # set once: a change of mode makes a layer forget what it keeps
        layer.eval()

        def run() -> None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, dtype == "bfloat16"):
                layer(x, context, prior)

    return run


def seconds(run: Callable[[], None]) -> float:
    """Time of the second of two runs in a row: the first fetches weights and buffers back into caches."""
    run()
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    run()
    return clock() - begin


def compare(names: list[str], shape: Row, load: str, dtype: str, mode: str, rounds: int) -> Iterator[Row]:
    """Medians of the layers' times, and of their ratios to the dense networks measured beside them."""
    torch.manual_seed(0)
    dense = DenseLayer(shape["dim"], shape["experts"], shape["hidden"], shape["top_k"])
    baseline = runner("dense", dense, shape, load, dtype, mode)
    runs, widths = {}, {}
    for name in names:
        runs[name] = runner(name, layer_of(name, shape), shape, load, dtype, mode)
        widths[name] = round(products_per_token(name, shape) / (2 * shape["dim"]))
    for run in (baseline, *runs.values()):
        run()
    times: dict[str, list[float]] = {name: [] for name in names}
    dense_times: list[float] = []
    for _ in range(rounds):
        dense_times.append(seconds(baseline))
        for name, run in runs.items():
            times[name].append(seconds(run))
    dense_width = shape["top_k"] * shape["hidden"]
    for name in names:
        ratio = statistics.median(t / d for t, d in zip(times[name], dense_times, strict=True))
        yield {
            "layer": name,
            **{key: shape[key] for key in ("batch", "tokens", "dim", "hidden", "experts", "top_k")},
            "load": load,
            "dtype": dtype,
            "mode": mode,
            "ms": round(1e3 * statistics.median(times[name]), 2),
            "width_K_H": round(ratio, 3),
            # A dense network's time is proportional to its width.
            "same_products": round(ratio * dense_width / widths[name], 3),
        }


def sections(quick: bool) -> dict[str, list[tuple[list[str], Row, str, str, str]]]:
    """The comparisons of each section: layers, shape, load, dtype, mode."""
    base: Row = {"batch": 8, "tokens": 197, "dim": 384, "hidden": 1536, "experts": 8, "top_k": 2}
    if quick:
        base |= {"batch": 2, "tokens": 19, "dim": 64, "hidden": 128}
    every = [*(f"ermoe {c}" for c in COUPLINGS), "masked shared", "emoe", "vmoe", "cosine", "soft", "dense"]
    modes = ("evaluation", "training")
    by_experts = [base | {"experts": count} for count in ((8, 16) if quick else (8, 16, 32, 64))]
    lengths = ((2, 19), (4, 19)) if quick else ((2, 197), (8, 197), (8, 600), (8, 1200))
    by_tokens = [base | {"batch": batch, "tokens": tokens} for batch, tokens in lengths]
    plain = ("balanced", "float32")
    return {
        "routers": [(every, base, *plain, mode) for mode in modes],
        "skewed": [(every, base, "skewed", "float32", mode) for mode in modes],
        "bfloat16": [
            (every, base, load, "bfloat16", mode) for load in ("balanced", "skewed") for mode in modes
        ],
        "experts": [
            (["ermoe shared", "ermoe joint", "vmoe"], shape, *plain, mode)
            for shape in by_experts
            for mode in modes
        ],
        "tokens": [
            (["ermoe shared", "ermoe joint", "vmoe"], shape, *plain, mode)
            for shape in by_tokens
            for mode in modes
        ],
        "maps": [
            (
                [f"ermoe {c} {free}".strip() for c in COUPLINGS[:2] for free in ("", "none")],
                shape,
                *plain,
                mode,
            )
            for shape in by_tokens
            for mode in modes[1:]
        ],
    }


def print_rows(section: str, rows: list[Row]) -> None:
    keys = (
        "layer",
        "batch",
        "tokens",
        "experts",
        "load",
        "dtype",
        "mode",
        "ms",
        "same_products",
        "width_K_H",
    )
    table = Table(*keys, title=section)
    for row in rows:
        table.add_row(*(str(row[key]) for key in keys))
    CONSOLE.print(table)


def draw(results: dict[str, list[Row]], path: Path) -> None:
    """Ratios by layer, by number of experts and by number of tokens."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    rows = results.get("routers", [])
    names = list(dict.fromkeys(row["layer"] for row in rows))
    for offset, mode in ((-0.2, "evaluation"), (0.2, "training")):
        values = [
            r["same_products"] for name in names for r in rows if (r["layer"], r["mode"]) == (name, mode)
        ]
        axes[0].barh([i + offset for i in range(len(names))], values, height=0.4, label=mode)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].axvline(1.25, color="grey", linestyle=":")
    axes[0].set_xlabel("time relative to a dense network of the same products")
    for axis, section, of, label in (
        (axes[1], "experts", lambda r: r["experts"], "experts E (R = D / E)"),
        (axes[2], "tokens", lambda r: r["batch"] * r["tokens"], "tokens"),
    ):
        for name, mode in dict.fromkeys((r["layer"], r["mode"]) for r in results.get(section, [])):
            line = [r for r in results[section] if (r["layer"], r["mode"]) == (name, mode)]
            style = "-" if mode == "training" else "--"
            axis.plot([of(r) for r in line], [r["width_K_H"] for r in line], style, label=f"{name}, {mode}")
        axis.set(xscale="log", xlabel=label, ylabel="time relative to dense of width K H")
    for axis in axes:
        axis.legend(fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format=path.suffix.lstrip("."))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sections", nargs="*", default=list(sections(quick=True)))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--figure", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, list[Row]] = {}
    if arguments.json and arguments.json.exists():
        results = json.loads(arguments.json.read_text(encoding="utf-8"))
    for section in arguments.sections:
        rows: list[Row] = []
        for comparison in sections(arguments.quick)[section]:
            rows += compare(*comparison, 1 if arguments.quick else arguments.rounds)
        clock = "processor" if arguments.threads == 1 else "wall"
        results[section] = [row | {"threads": arguments.threads, "clock": clock} for row in rows]
        print_rows(section, rows)
        if arguments.json:
            write_json(arguments.json, results)
        if arguments.figure:
            draw(results, arguments.figure)


if __name__ == "__main__":
    main()
