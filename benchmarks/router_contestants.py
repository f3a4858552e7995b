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

from rich.console import Console
from rich.table import Table

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


def print_summary(
    summary: Sequence[Mapping[str, Any]], headings: Mapping[str, tuple[str, str]], title: str
) -> None:
    """A table: for each figure its heading and the format of a number; mean (lowest to highest)."""
    table = Table(title=title)
    table.add_column("router")
    table.add_column("seeds", justify="right")
    for heading, _ in headings.values():
        table.add_column(heading, justify="right")
    for line in summary:
        cells = []
        for figure, (_, form) in headings.items():
            value = line.get(figure)
            cells.append(
                "-"
                if value is None
                else f"{value['mean']:{form}} ({value['low']:{form}} to {value['high']:{form}})"
            )
        table.add_row(line["contestant"], str(line["seeds"]), *cells)
    Console(width=180, highlight=False).print(table)
