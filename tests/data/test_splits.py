"""Folds by subject with matched ages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainage.data.splits import age_stratified_folds
from brainage.errors import ConfigError


@given(
    st.lists(st.tuples(st.integers(0, 40), st.floats(18, 96)), min_size=1, max_size=80),
    st.integers(2, 6),
    st.integers(0, 5),
)
def test_a_subject_is_in_one_fold_and_folds_are_even(
    scans: list[tuple[int, float]], num_folds: int, seed: int
) -> None:
    subjects = [f"sub-{number}" for number, _ in scans]
    ages = [age for _, age in scans]
    if len(set(subjects)) < num_folds:
        with pytest.raises(ConfigError, match="folds"):
            age_stratified_folds(subjects, ages, num_folds, seed)
        return
    folds = age_stratified_folds(subjects, ages, num_folds, seed)
    by_subject = {
        name: {int(f) for f, s in zip(folds, subjects, strict=True) if s == name} for name in subjects
    }
    assert all(len(found) == 1 for found in by_subject.values())
    sizes = np.bincount([found.pop() for found in by_subject.values()], minlength=num_folds)
    assert sizes.max() - sizes.min() <= 1


def test_folds_have_like_ages_and_depend_on_the_seed() -> None:
    ages = np.random.default_rng(0).uniform(18, 96, 200)
    subjects = [f"sub-{number}" for number in range(200)]
    folds = age_stratified_folds(subjects, ages, 5, 0)
    means = [ages[folds == fold].mean() for fold in range(5)]
    assert max(means) - min(means) < 2
    assert (folds == age_stratified_folds(subjects, ages, 5, 0)).all()
    assert (folds != age_stratified_folds(subjects, ages, 5, 1)).any()
