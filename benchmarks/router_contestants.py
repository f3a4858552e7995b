"""The routers that the benchmarks compare, and how their runs are kept.

One run is one contestant with one seed, and one JSON file. A benchmark that is started again skips the runs
whose file is there and was made with the same settings, so it can be stopped at any time. Runs go seed by
seed: whatever is finished, all contestants have had nearly the same number of seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from brainage.evaluate.intervals import bootstrap_mean
from brainage.files import write_json


@dataclass(frozen=True)
class Contestant:
    """One router with its settings.

    Attributes:
        name: in tables.
        moe: what the layer gets beside the sizes that all share.
        balancing: weight of the balancing loss, 0 for none.
        context: what an ERMoE compares a token with, as the benchmark calls it.
    """

    name: str
    moe: Mapping[str, Any] = field(default_factory=dict)
    balancing: float = 0.0
    context: str = "attention_mean"

    @property
    def router(self) -> str:
        """Name of the router in ``make_moe``."""
        return str(self.moe["router"])

    def rank(self, rank: int, num_experts: int) -> dict[str, int]:
        """The setting ``rank``: an ERMoE's for each expert, EMoE's one basis of as many columns together."""
        return {"ermoe": {"rank": rank}, "emoe": {"rank": rank * num_experts}}.get(self.router, {})


def ermoe(name: str, balancing: float = 0.0, context: str = "attention_mean", **moe: Any) -> Contestant:
    """An ERMoE; the default coupling is the package's."""
    return Contestant(name, {"router": "ermoe", **moe}, balancing, context)


V_MOE_WEIGHT = 0.01
"""Weight of V-MoE's balancing loss in its paper (arXiv 2106.05974, A.2)."""

CONTESTANTS = (
    ermoe("ermoe", scores="eigenbasis"),
    ermoe("ermoe, aligned energy", scores="aligned_energy"),
    Contestant("vmoe", {"router": "vmoe"}),
    Contestant("vmoe balanced", {"router": "vmoe"}, balancing=V_MOE_WEIGHT),
    Contestant("dense", {"router": "dense"}),
    Contestant("emoe", {"router": "emoe"}),
    Contestant("cosine", {"router": "cosine"}),
    Contestant("soft", {"router": "soft"}),
    ermoe("ermoe, learned scores", scores="learned"),
    ermoe("ermoe, not orthogonal", scores="eigenbasis", orthogonalization="none"),
    ermoe("ermoe balanced", scores="eigenbasis", balancing=V_MOE_WEIGHT),
)
"""What both benchmarks compare, in the order in which they run."""


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options that :func:`run_all` reads."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, one JSON each")
    parser.add_argument("--json", type=Path, default=None, help="also write the summary")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=None, help="run only so many of the contestants")
    parser.add_argument("--finished", action="store_true", help="run nothing, summarise what is there")


def run_all(
    contestants: Sequence[Contestant],
    options: argparse.Namespace,
    settings: Mapping[str, Any],
    run: Callable[[Contestant, int], dict[str, Any]],
) -> list[dict[str, Any]]:
    """The rows of all runs, made or read from ``options.out``, in the order of the contestants.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    console = Console(stderr=True, highlight=False, width=200)
    rows = []
    for seed in range(options.seeds):
        for contestant in contestants[: options.first]:
            path = options.out / f"{contestant.name.replace(', ', '-').replace(' ', '-')}-seed{seed}.json"
            if path.exists():
                kept = json.loads(path.read_text(encoding="utf-8"))
                if kept["settings"] != dict(settings):
                    raise ValueError(
                        f"{path} was made with other settings: give another folder, or delete it"
                    )
                rows.append(kept["row"])
            elif not options.finished:
                rows.append({"contestant": contestant.name, "seed": seed, **run(contestant, seed)})
                write_json(path, {"settings": dict(settings), "row": rows[-1]})
                console.print(" ".join(f"{key} {shown(v)}" for key, v in rows[-1].items() if shown(v)))
    order = [contestant.name for contestant in contestants]
    return sorted(rows, key=lambda row: order.index(row["contestant"]))


def shown(value: Any) -> str:
    """A figure in few digits, '' for what is no scalar."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if isinstance(value, int | str) else ""


def summarise(rows: Iterable[Mapping[str, Any]], figures: Sequence[str]) -> list[dict[str, Any]]:
    """Mean, lowest and highest of each figure over the seeds of each contestant, in order of appearance."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(str(row["contestant"]), []).append(row)
    summary = []
    for name, group in by_name.items():
        line: dict[str, Any] = {"contestant": name, "seeds": len(group)}
        for figure in figures:
            values = [row[figure] for row in group if row.get(figure) is not None]
            if values:
                line[figure] = {"mean": statistics.fmean(values), "low": min(values), "high": max(values)}
        summary.append(line)
    return summary


def add_differences(
    summary: list[dict[str, Any]], rows: Iterable[Mapping[str, Any]], figure: str, resamples: int = 10_000
) -> list[dict[str, Any]]:
    """Give every contestant but the first ``difference``: its mean of a figure less that of the first.

    The rows' ``figure`` lists a value for each item; contestants are paired by item, each item's value a mean
    over the seeds that both have. ``ci95`` is a percentile bootstrap over items.
    """
    values: dict[str, dict[int, np.ndarray]] = {}
    for row in rows:
        values.setdefault(row["contestant"], {})[row["seed"]] = np.asarray(row[figure], dtype=np.float64)
    if not summary:
        return summary
    first = values[summary[0]["contestant"]]
    for line in summary[1:]:
        own = values[line["contestant"]]
        common = sorted(set(own) & set(first))
        if common:
            apart_N = np.mean([own[seed] - first[seed] for seed in common], axis=0)
            bounds = bootstrap_mean(apart_N, np.arange(len(apart_N)), resamples=resamples)
            line["difference"] = {"mean": float(apart_N.mean()), "ci95": list(bounds), "seeds": len(common)}
    return summary


def print_summary(
    summary: Sequence[Mapping[str, Any]], headings: Mapping[str, tuple[str, str]], title: str
) -> None:
    """A table: for each figure its heading and the format of a number; mean (lowest to highest)."""
    table = Table(title=title)
    table.add_column("router")
    table.add_column("seeds", justify="right")
    for heading, _ in headings.values():
        table.add_column(heading, justify="right")
    compared = any("difference" in line for line in summary)
    if compared:
        table.add_column("difference to the first (95 %)", justify="right")
    for line in summary:
        cells = [_cell(line.get(figure), form) for figure, (_, form) in headings.items()]
        if compared:
            apart = line.get("difference")
            low, high = apart["ci95"] if apart else (0, 0)
            cells.append(f"{apart['mean']:+.3f} ({low:+.3f} to {high:+.3f})" if apart else "-")
        table.add_row(line["contestant"], str(line["seeds"]), *cells)
    Console(width=240, highlight=False).print(table)


def _cell(value: Mapping[str, float] | None, form: str) -> str:
    """Mean, and over several seeds lowest to highest."""
    if value is None:
        return "-"
    mean, low, high = (f"{value[name]:{form}}" for name in ("mean", "low", "high"))
    return mean if value["low"] == value["high"] else f"{mean} ({low} to {high})"
