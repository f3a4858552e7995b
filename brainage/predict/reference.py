"""What healthy people of each age get from a region, against which a scan's contribution is read.

The reference is fitted to out-of-fold contributions: each subject's were made by a model that never saw the
subject, so that they spread as those of new people do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVELS = (0.005, 0.01, 0.025, *(i / 20 for i in range(1, 20)), 0.975, 0.99, 0.995)
FEWEST = 40  # subjects; with fewer the outer quantiles are guesses
_SAME = 1e-4  # years; people who differ by less are the same
_CENTRE, _UNIT = 50.0, 20.0  # years; ages are scaled for the fit


@dataclass(frozen=True)
class AgeReference:
    """The distribution of one value (years) by age: a parabola, a linear spread, and quantiles.

    Attributes:
        expected: coefficients of 1, a, a^2 with a = (age - 50) / 20.
        spread: coefficients of 1, a of the standard deviation about it.
        least_spread: below which the spread does not fall.
        quantiles: of the standardised residuals, at ``LEVELS``.
        age_range: youngest and oldest subject; outside nothing is said.
        subjects: how many it was fitted to.
    """

    expected: tuple[float, float, float]
    spread: tuple[float, float]
    least_spread: float
    quantiles: tuple[float, ...]
    age_range: tuple[float, float]
    subjects: int

    def at(self, age: float) -> tuple[float, float]:
        """Expected value and standard deviation at an age."""
        a = (age - _CENTRE) / _UNIT
        mean = self.expected[0] + self.expected[1] * a + self.expected[2] * a * a
        return mean, max(self.spread[0] + self.spread[1] * a, self.least_spread)

    def _says_something(self, age: float) -> bool:
        # A region without a token of its own gives the same to everybody.
        return self.least_spread > _SAME and self.age_range[0] <= age <= self.age_range[1]

    def percent_below(self, value: float, age: float) -> float | None:
        """Percentage of healthy people of that age with a smaller value; None outside the age range, and
        where all people have the same value."""
        if not self._says_something(age):
            return None
        mean, spread = self.at(age)
        return 100 * float(np.interp((value - mean) / spread, self.quantiles, LEVELS))

    def interval(self, age: float, level: float = 0.9) -> tuple[float, float] | None:
        """Central range of healthy people of that age; None outside the age range, and
        where all people have the same value."""
        if not self._says_something(age):
            return None
        mean, spread = self.at(age)
        low, high = np.interp([(1 - level) / 2, (1 + level) / 2], LEVELS, self.quantiles)
        return float(mean + spread * low), float(mean + spread * high)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, rounded far below what the reference can tell apart."""
        return {
            "expected": [round(value, 5) for value in self.expected],
            "spread": [round(value, 5) for value in self.spread],
            "least_spread": round(self.least_spread, 5),
            "quantiles": [round(value, 4) for value in self.quantiles],
            "age_range": list(self.age_range),
            "subjects": self.subjects,
        }

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> AgeReference:
        """Inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError: not what ``to_json`` wrote.
        """
        e0, e1, e2 = (float(value) for value in facts["expected"])
        s0, s1 = (float(value) for value in facts["spread"])
        low, high = (float(value) for value in facts["age_range"])
        quantiles = tuple(float(value) for value in facts["quantiles"])
        if len(quantiles) != len(LEVELS):
            raise ValueError(f"{len(quantiles)} quantiles instead of {len(LEVELS)}")
        least, subjects = float(facts["least_spread"]), int(facts["subjects"])
        return AgeReference((e0, e1, e2), (s0, s1), least, quantiles, (low, high), subjects)


def fit_reference(ages_C: np.ndarray, values_C: np.ndarray) -> AgeReference | None:
    """The distribution of ``values_C`` (C,) over ``ages_C`` (C,), years; None for too few subjects."""
    ages_C, values_C = np.asarray(ages_C, dtype=float), np.asarray(values_C, dtype=float)
    if len(ages_C) < FEWEST or np.ptp(ages_C) == 0:
        return None
    a_C = (ages_C - _CENTRE) / _UNIT
    expected = np.polynomial.polynomial.polyfit(a_C, values_C, 2)
    residual_C = values_C - np.polynomial.polynomial.polyval(a_C, expected)
    # For a normal distribution the mean absolute deviation is sqrt(2 / pi) of the standard deviation.
    spread = np.polynomial.polynomial.polyfit(a_C, np.abs(residual_C), 1) * np.sqrt(np.pi / 2)
    least = max(0.3 * float(residual_C.std()), 1e-6)
    z_C = residual_C / np.maximum(np.polynomial.polynomial.polyval(a_C, spread), least)
    return AgeReference(
        expected=(float(expected[0]), float(expected[1]), float(expected[2])),
        spread=(float(spread[0]), float(spread[1])),
        least_spread=least,
        quantiles=tuple(np.quantile(z_C, LEVELS).tolist()),
        age_range=(float(ages_C.min()), float(ages_C.max())),
        subjects=len(ages_C),
    )
