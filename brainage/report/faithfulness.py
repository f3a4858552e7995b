"""Deletion and insertion curves, and how well maps find the regions that aged, in one figure."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brainage.files import replacing

_COLOURS = {
    "contribution": "#1f5a99",
    "occlusion": "#a4501a",
    "integrated gradients": "#2e7d4f",
    "gradient": "#7a4fa3",
    "random order": "#6b7480",
    "age of the region by itself": "#b0267e",
}
_GOAL = 0.9


def save_faithfulness_figure(path: str | PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a PNG of what ``brainage faithfulness`` found: a column of curves a cohort, then the ROC areas.

    Args:
        path: of the PNG.
        content: as in ``faithfulness.json``.
    """
    cohorts = content["cohorts"]
    figure = Figure(figsize=(4.0 * len(cohorts) + 6.2, 6.6), layout="constrained")
    left, right = np.ravel(
        np.asarray(figure.subfigures(1, 2, width_ratios=[4.0 * len(cohorts), 6.2]), dtype=object)
    )
    grid = left.subplots(2, len(cohorts), squeeze=False, sharey="row")
    for column, cohort in enumerate(cohorts):
        for row, kind in enumerate(("deletion", "insertion")):
            _draw_curves(grid[row, column], cohort, kind)
    grid[0, 0].legend(frameon=False, fontsize=8, loc="upper right")
    _draw_areas(right.subplots(), content["truth"])
    figure.suptitle(f"{content['model']['name']}: do the maps say what the model does?", fontsize=12)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=130)


def _draw_curves(axes: Axes, cohort: Mapping[str, Any], kind: str) -> None:
    for method, row in cohort["deletion"].items():
        values = row[kind]
        axes.plot(
            np.linspace(0, 100, len(values)),
            values,
            color=_COLOURS.get(method, "#222222"),
            linestyle="--" if method == "random order" else "-",
            linewidth=1.6,
            label=method,
        )
    words = "taken away" if kind == "deletion" else "put back"
    axes.set_xlabel(f"% of regions {words}", fontsize=9)
    axes.set_ylabel("share of the way from the average scan", fontsize=8.5)
    axes.set_title(f"{kind}, {cohort['scans']} scans: {cohort['name']}", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_areas(axes: Axes, truth: Mapping[str, Any]) -> None:
    rows = truth["methods"][::-1]
    position = np.arange(len(rows))
    for place, row in zip(position, rows, strict=True):
        low, high = row["auc_ci95"]
        colour = _COLOURS.get(row["method"], "#222222")
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(row["auc"], place, "o", color=colour, markersize=5)
    axes.axvline(0.5, color="#444444", linestyle=":", linewidth=1)
    axes.axvline(_GOAL, color="#2e7d4f", linestyle="--", linewidth=1)
    axes.set_yticks(position, [f"{row['method']}, {row['against']}" for row in rows], fontsize=8)
    axes.set_xlim(min(0.4, *(row["auc_ci95"][0] for row in rows)), 1.0)
    axes.set_xlabel("ROC area of finding aged regions (dotted: chance, dashed: goal)", fontsize=9)
    axes.set_title(f"{truth['people']} simulated people, half of the regions aged", fontsize=10)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)
