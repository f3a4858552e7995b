"""Corrections of the age bias: young brains are predicted too old and old ones too young.

Every regression with r < 1 pulls its predictions towards the mean, so the gap falls with age. The
corrections below fit a line on subjects that are *not* the ones to be corrected (a training or
calibration set) and remove it. Headline figures stay uncorrected, because a corrected prediction is
either stretched, which adds noise, or told the chronological age, which inflates its correlation with
it (Butler et al. 2021, doi:10.1002/hbm.25533). Corrected *gaps* are for comparing groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class AgeBias:
    """The line ``predicted = slope * age + intercept`` of a calibration set; years."""

    slope: float
    intercept: float


def fit_age_bias(age: ArrayLike, predicted: ArrayLike) -> AgeBias:
    """Least-squares line of ``predicted`` (N,) on chronological ``age`` (N,), both in years.

    Raises:
        ValueError: fewer than three subjects, or all of one age.
    """
    age_N = np.asarray(age, dtype=np.float64)
    predicted_N = np.asarray(predicted, dtype=np.float64)
    if age_N.shape != predicted_N.shape or age_N.size < 3 or np.ptp(age_N) == 0:
        raise ValueError(
            "an age bias needs at least three subjects of differing ages, each with a prediction"
        )
    slope, intercept = np.polynomial.polynomial.polyfit(age_N, predicted_N, 1)[::-1]
    return AgeBias(float(slope), float(intercept))


def correct_cole(predicted: ArrayLike, bias: AgeBias) -> NDArray[np.float64]:
    """Stretched prediction ``(predicted - intercept) / slope``, years; does not use the subject's age.

    Cole et al. 2018, doi:10.1038/mp.2017.62.

    Raises:
        ValueError: the line does not rise, so that there is nothing to stretch.
    """
    if bias.slope <= 0:
        raise ValueError(
            f"predictions do not rise with age (slope {bias.slope:.3g}), so they cannot be stretched"
        )
    return (np.asarray(predicted, dtype=np.float64) - bias.intercept) / bias.slope


def correct_de_lange(predicted: ArrayLike, age: ArrayLike, bias: AgeBias) -> NDArray[np.float64]:
    """Shifted prediction ``predicted + age - (slope * age + intercept)``, years; uses the subject's age.

    de Lange et al. 2019, doi:10.1073/pnas.1910666116; compared in de Lange & Cole 2020,
    doi:10.1016/j.nicl.2020.102229.
    """
    age_N = np.asarray(age, dtype=np.float64)
    return np.asarray(predicted, dtype=np.float64) + age_N - (bias.slope * age_N + bias.intercept)


def correct_beheshti(predicted: ArrayLike, age: ArrayLike, bias: AgeBias) -> NDArray[np.float64]:
    """Prediction less the fitted gap ``(slope - 1) * age + intercept``, years; uses the subject's age.

    Beheshti et al. 2019, doi:10.1016/j.nicl.2019.102063, fit the gap on age instead of the prediction.
    With one least-squares fit the two are the same line, so the result equals ``correct_de_lange``.
    """
    age_N = np.asarray(age, dtype=np.float64)
    expected_gap_N = (bias.slope - 1) * age_N + bias.intercept
    return np.asarray(predicted, dtype=np.float64) - expected_gap_N
