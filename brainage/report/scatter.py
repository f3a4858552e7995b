"""Predicted against chronological age, one point a scan."""

from __future__ import annotations

import io
from os import PathLike

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from brainage.files import replacing

_POINT, _LINE, _MEAN = "#1f5a99", "#444444", "#a4501a"


def age_scatter(
    age: ArrayLike,
    predicted: ArrayLike,
    *,
    title: str = "Predicted against chronological age",
    simulated: bool = False,
) -> bytes:
    """PNG of ``predicted`` (N,) against ``age`` (N,), both in years, on equal axes.

    The dashed line is perfect agreement, the dotted one the cohort's mean age.

    Args:
        age: chronological ages.
        predicted: predicted ages.
        title: heading of the plot.
        simulated: says so in the heading.
    """
    age_N, predicted_N = np.asarray(age, dtype=float), np.asarray(predicted, dtype=float)
    low = 5 * np.floor((min(age_N.min(), predicted_N.min()) - 2) / 5)
    high = 5 * np.ceil((max(age_N.max(), predicted_N.max()) + 2) / 5)
    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([low, high], [low, high], "--", color=_LINE, linewidth=1, label="perfect agreement")
    axes.axhline(age_N.mean(), linestyle=":", color=_MEAN, linewidth=1.4, label="mean age of the cohort")
    axes.scatter(
        age_N, predicted_N, s=28, color=_POINT, edgecolor="white", linewidth=0.6, zorder=3, label="one scan"
    )
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set(xlabel="chronological age (years)", ylabel="predicted age (years)")
    axes.set_title(f"{title} (simulated)" if simulated else title, fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    return png.getvalue()


def save_age_scatter(
    path: str | PathLike[str], age: ArrayLike, predicted: ArrayLike, *, simulated: bool = False
) -> None:
    """Write ``age_scatter`` to ``path``."""
    png = age_scatter(age, predicted, simulated=simulated)
    with replacing(path) as partial:
        partial.write_bytes(png)
