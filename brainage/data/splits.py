"""Folds by subject, each with the age distribution of the whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brainage.errors import ConfigError


def age_stratified_folds(
    subjects: Sequence[str], ages: Sequence[float], num_folds: int, seed: int
) -> np.ndarray:
    """Fold of each scan, with all scans of a subject in one fold.

    Subjects are sorted by age (mean of their scans) and dealt out in shuffled rounds of ``num_folds``, so
    each fold gets one of every ``num_folds`` subjects of neighbouring ages.

    Args:
        subjects: subject of each of N scans.
        ages: age of each scan, years.
        num_folds: from 2 to the number of subjects.
        seed: of the shuffling.

    Returns:
        (N,) fold indices from 0.

    Raises:
        ConfigError: too few subjects for the folds.
    """
    names, member_N = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    if not 2 <= num_folds <= len(names):
        raise ConfigError("folds", num_folds, f"must lie between 2 and the {len(names)} subjects")
    sums_S = np.bincount(member_N, weights=np.asarray(ages, dtype=float))
    order = np.argsort(sums_S / np.bincount(member_N), kind="stable")
    rng = np.random.default_rng(seed)
    fold_S = np.empty(len(names), dtype=int)
    for start in range(0, len(names), num_folds):
        round_of = order[start : start + num_folds]
        fold_S[round_of] = rng.permutation(num_folds)[: len(round_of)]
    return fold_S[member_N]
