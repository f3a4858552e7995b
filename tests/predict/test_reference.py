"""The reference of healthy people: percentiles that are uniform for new healthy people, at every age."""

from __future__ import annotations

import json

import numpy as np
import pytest

from brainage.predict.reference import FEWEST, AgeReference, fit_reference


def cohort(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Values that rise with age along a parabola and spread more in the old."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 90, count)
    a = (age - 50) / 20
    return age, 0.5 + 1.0 * a + 0.2 * a**2 + (0.5 + 0.1 * a) * rng.standard_normal(count)


def test_percentiles_of_new_people_are_uniform_in_young_and_old() -> None:
    reference = fit_reference(*cohort(2000, 0))
    age, value = cohort(4000, 1)
    inside = (age >= reference.age_range[0]) & (age <= reference.age_range[1])
    below = np.array([reference.percent_below(v, a) for v, a in zip(value[inside], age[inside], strict=True)])
    for half in (age[inside] < 55, age[inside] >= 55):
        shares, _ = np.histogram(below[half], bins=5, range=(0, 100))
        assert shares / half.sum() == pytest.approx(np.full(5, 0.2), abs=0.03)


def test_the_interval_holds_its_share() -> None:
    reference = fit_reference(*cohort(2000, 0))
    age, value = cohort(4000, 2)
    inside = [
        low <= v <= high
        for v, a in zip(value, age, strict=True)
        if (found := reference.interval(a, 0.9))
        for low, high in [found]
    ]
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)


def test_nothing_is_said_beyond_the_ages_of_the_reference() -> None:
    reference = fit_reference(*cohort(100, 0))
    assert reference.percent_below(0.0, 95.0) is None
    assert reference.interval(15.0) is None


def test_too_few_people_make_no_reference() -> None:
    assert fit_reference(*cohort(FEWEST - 1, 0)) is None
    assert fit_reference(np.full(100, 30.0), np.arange(100.0)) is None


def test_it_survives_json() -> None:
    reference = fit_reference(*cohort(200, 0))
    again = AgeReference.from_json(json.loads(json.dumps(reference.to_json())))
    assert again.percent_below(1.0, 60.0) == pytest.approx(reference.percent_below(1.0, 60.0), abs=0.1)
    facts = reference.to_json()
    with pytest.raises(ValueError, match="quantiles"):
        AgeReference.from_json(facts | {"quantiles": facts["quantiles"][:-1]})


def test_a_region_that_gives_everybody_the_same_has_no_percentile() -> None:
    ages = np.linspace(20, 80, 60)
    reference = fit_reference(ages, np.zeros(60))
    assert reference is not None
    again = AgeReference.from_json(reference.to_json())
    assert again.percent_below(0.0, 50.0) is None
    assert again.interval(50.0) is None
