"""Predicted against chronological age with the range of the healthy, as the points of an SVG drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainage.predict.reference import AgeReference

WIDTH, HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 448, 12, 268


@dataclass(frozen=True)
class CurvePoint:
    """A scan: ages in years, with the bounds of its interval where it has one."""

    age: float
    predicted: float
    interval: tuple[float, float] | None


def age_curve(
    points: Sequence[CurvePoint],
    age_range: tuple[float, float],
    gap: AgeReference | None,
    bias: tuple[float, float],
    half_width: float,
) -> dict[str, Any]:
    """What ``curve_chart`` of the templates draws.

    Args:
        points: scans, in time; joined where there are several.
        age_range: of the training subjects, years.
        gap: of healthy people by age. Without it the band is the bias line with the interval's half-width.
        bias: slope and intercept of predicted on chronological age.
        half_width: of the prediction interval, years.
    """
    ages = np.linspace(*age_range, 40)
    if gap is None:
        middle = bias[0] * ages + bias[1]
        low, high = middle - half_width, middle + half_width
        words = f"where 90 % of healthy people are expected (the model's bias line, ± {half_width:.0f} years)"
    else:
        inside = [(age, gap.interval(age), gap.at(age)[0]) for age in ages.tolist()]
        kept = [(age, span, mean) for age, span, mean in inside if span is not None]
        ages = np.array([age for age, _, _ in kept])
        middle = ages + np.array([mean for _, _, mean in kept])
        low, high = (ages + np.array([span[side] for _, span, _ in kept]) for side in (0, 1))
        words = f"the middle 90 % of {gap.subjects} healthy people by age"
    values = [value for point in points for value in (point.predicted, *(point.interval or ()))]
    x_low, x_high = _round_range([*age_range, *(point.age for point in points)])
    y_low, y_high = _round_range([float(low.min()), float(high.max()), *values])

    def x(age: float) -> float:
        return round(_LEFT + (age - x_low) / (x_high - x_low) * (_RIGHT - _LEFT), 1)

    def y(age: float) -> float:
        return round(_BOTTOM - (age - y_low) / (y_high - y_low) * (_BOTTOM - _TOP), 1)

    def path(ages: Sequence[float], predicted: Sequence[float]) -> str:
        return "M" + "L".join(f"{x(age)} {y(value)}" for age, value in zip(ages, predicted, strict=True))

    start, end = max(x_low, y_low), min(x_high, y_high)
    band = path([*ages, *ages[::-1]], [*low, *high[::-1]]) + "Z"
    described = "; ".join(f"{point.predicted:.1f} at {point.age:.1f}" for point in points)
    return {
        "width": WIDTH, "height": HEIGHT, "left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM,
        "band": band,
        "middle": path(ages.tolist(), middle.tolist()),
        "identity": path([start, end], [start, end]),
        "x_ticks": [{"at": x(age), "text": f"{age:g}"} for age in _ticks(x_low, x_high)],
        "y_ticks": [{"at": y(age), "text": f"{age:g}"} for age in _ticks(y_low, y_high)],
        "points": [
            {
                "x": x(point.age),
                "y": y(point.predicted),
                "low": y(point.interval[0]) if point.interval else None,
                "high": y(point.interval[1]) if point.interval else None,
            }
            for point in points
        ],
        "path": path([p.age for p in points], [p.predicted for p in points]) if len(points) > 1 else "",
        "words": f"Predicted against chronological age, years: {described}; with {words}.",
        "band_words": words,
    }  # fmt: skip


def _round_range(values: Sequence[float]) -> tuple[float, float]:
    return 10.0 * math.floor(min(values) / 10), 10.0 * math.floor(max(values) / 10) + 10


def _ticks(low: float, high: float) -> list[float]:
    step = 10 if high - low <= 90 else 20
    return [float(age) for age in range(math.ceil(low / step) * step, int(high) + 1, step)]
