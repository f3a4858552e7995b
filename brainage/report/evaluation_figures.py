"""The pictures of an evaluation page: calibration, gaps by age, coverage by age, two scans of one person."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

_POINT, _LINE, _CURVE, _QUIET = "#1f5a99", "#444444", "#b4451f", "#8a95a3"


def calibration_plot(
    age: ArrayLike, predicted: ArrayLike, curve: Sequence[Mapping[str, Any]], *, simulated: bool = False
) -> bytes:
    """PNG of predicted against true age (N,), years, with the identity and the means of like predictions."""
    age_N, predicted_N = np.asarray(age, float), np.asarray(predicted, float)
    low = 5 * np.floor((min(age_N.min(), predicted_N.min()) - 2) / 5)
    high = 5 * np.ceil((max(age_N.max(), predicted_N.max()) + 2) / 5)
    figure, axes = _figure(5.4, 5.4)
    axes.plot([low, high], [low, high], "--", color=_LINE, linewidth=1, label="predicted = true")
    axes.scatter(age_N, predicted_N, s=18, color=_POINT, alpha=0.55, linewidth=0, label="one scan")
    if curve:
        means = np.array([point["age"] for point in curve])
        bounds = np.array([_or_mean(point) for point in curve])
        axes.errorbar(
            means,
            [point["predicted"] for point in curve],
            xerr=np.abs(bounds.T - means),
            fmt="o-",
            color=_CURVE,
            markersize=5,
            linewidth=1.4,
            capsize=2,
            label="mean of like predictions, 95 %",
        )
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set(xlabel="true age (years)", ylabel="predicted age (years)")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return _png(figure, axes, simulated)


def gap_plot(
    age: ArrayLike, gap: ArrayLike, corrected: ArrayLike | None, *, simulated: bool = False
) -> bytes:
    """PNG of gaps (N,) against true age (N,), years: as they are, and corrected where they can be."""
    age_N = np.asarray(age, float)
    panels = [("raw", np.asarray(gap, float))]
    if corrected is not None:
        panels.append(("corrected for age bias", np.asarray(corrected, float)))
    figure = Figure(figsize=(4.6 * len(panels), 3.6), layout="constrained")
    limit = 1.05 * max(float(np.abs(values).max()) for _, values in panels) + 1
    for place, (title, values) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        axes.axhline(0, color=_LINE, linestyle="--", linewidth=1)
        axes.scatter(age_N, values, s=16, color=_POINT, alpha=0.6, linewidth=0)
        if len(age_N) > 2 and np.ptp(age_N) > 0:
            ends = np.array([age_N.min(), age_N.max()])
            axes.plot(ends, np.polyval(np.polyfit(age_N, values, 1), ends), color=_CURVE, linewidth=1.6)
        axes.set(ylim=(-limit, limit), xlabel="true age (years)", ylabel="gap (years)")
        axes.set_title(f"{title} (simulated)" if simulated else title, fontsize=10)
        _plain(axes)
    return _bytes(figure)


def coverage_plot(coverage: Mapping[str, Any], *, simulated: bool = False) -> bytes:
    """PNG of the share of intervals that hold the true age, by age band, with Wilson's intervals."""
    bands = coverage["by_age_band"]
    figure, axes = _figure(5.4, 3.4)
    shares = np.array([band["coverage"] for band in bands])
    bounds = np.array([band["coverage_ci95"] for band in bands])
    if coverage["level"] is not None:
        axes.axhline(
            coverage["level"],
            color=_LINE,
            linestyle="--",
            linewidth=1,
            label=f"promised: {coverage['level']:.0%}",
        )
        axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    axes.errorbar(range(len(bands)), shares, yerr=np.abs(bounds.T - shares), fmt="o", color=_POINT, capsize=3)
    axes.set_xticks(
        range(len(bands)), [f"{band['group']}\nn={band['n_scans']}" for band in bands], fontsize=8
    )
    axes.set(ylim=(0, 1.03), ylabel="intervals that hold the age", xlabel="true age (years)")
    return _png(figure, axes, simulated)


def agreement_plot(retest: Mapping[str, Any], *, simulated: bool = False) -> bytes:
    """PNG after Bland & Altman: difference of two scans of a person against their mean, years."""
    pairs = np.array(retest["pairs"])
    difference, mean = pairs[:, 1] - pairs[:, 0], pairs.mean(1)
    figure, axes = _figure(5.4, 3.6)
    axes.scatter(mean, difference, s=20, color=_POINT, alpha=0.7, linewidth=0)
    axes.axhline(retest["bias"], color=_CURVE, linewidth=1.4, label="mean difference")
    for name, label in (("limit_low", "95 % limits of agreement"), ("limit_high", "_")):
        axes.axhline(retest[name], color=_LINE, linestyle="--", linewidth=1, label=label)
    axes.axhline(0, color=_QUIET, linewidth=0.8)
    largest = max(float(np.abs(difference).max()), abs(retest["limit_low"]), abs(retest["limit_high"]))
    # Room for the legend above the upper limit.
    axes.set(ylim=(-1.15 * largest - 0.1, 1.45 * largest + 0.1))
    axes.set(xlabel="mean of both predictions (years)", ylabel="second less first (years)")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", ncols=2)
    return _png(figure, axes, simulated)


def _or_mean(point: Mapping[str, Any]) -> list[float]:
    return [point["age"] if bound is None else bound for bound in point["age_ci95"]]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure, axes: Axes, simulated: bool) -> bytes:
    if simulated:
        axes.set_title("simulated data", fontsize=10)
    _plain(axes)
    return _bytes(figure)


def _bytes(figure: Figure) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=140)
    return png.getvalue()
