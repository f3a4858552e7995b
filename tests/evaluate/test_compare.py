import numpy as np
import pandas as pd
import pytest

from brainage.evaluate.ages import JoinedAges
from brainage.evaluate.compare import FIGURES, compare_ages, compare_predictors


def cohort(seed, n=60):
    rng = np.random.default_rng(seed)
    return rng, rng.uniform(20, 80, n), np.arange(n)


def test_the_difference_is_that_of_the_figures_and_changes_sign_with_the_order():
    rng, age, who = cohort(0)
    a, b = age + rng.normal(0, 4, 60), age + rng.normal(0, 8, 60)
    there, back = (
        compare_predictors(age, a, b, who, resamples=500),
        compare_predictors(age, b, a, who, resamples=500),
    )
    for name in FIGURES:
        assert there[name]["difference"] == pytest.approx(there[name]["a"] - there[name]["b"])
        assert there[name]["difference"] == pytest.approx(-back[name]["difference"])
        assert (there[name]["low"], there[name]["high"]) == pytest.approx(
            (-back[name]["high"], -back[name]["low"])
        )
    assert there["mae"]["high"] < 0
    assert there["mae"]["p"] < 0.05


def test_pairing_sees_what_two_separate_intervals_do_not():
    # Both miss the same subjects by much; B is always a year worse.
    rng, age, who = cohort(1)
    shared = rng.normal(12, 6, 60).clip(2)
    found = compare_predictors(age, age + shared, age + shared + 1, who, resamples=1000)["mae"]
    assert (found["difference"], found["low"], found["high"]) == pytest.approx((-1, -1, -1))
    assert found["p"] == pytest.approx(2 / 1001)


def test_no_difference_is_found_about_as_seldom_as_promised():
    found = 0
    for seed in range(200):
        rng, age, who = cohort(seed)
        a, b = age + rng.normal(0, 6, 60), age + rng.normal(0, 6, 60)
        found += compare_predictors(age, a, b, who, resamples=300, seed=seed)["mae"]["p"] < 0.05
    assert found / 200 <= 0.1


def joined(rows):
    table = pd.DataFrame(rows, columns=["participant_id", "session_id", "age", "predicted_age"])
    return JoinedAges(table=table, failed=0, without_age=0, not_predicted=0, notes=())


def test_pairs_scans_by_id_and_counts_the_others():
    first = joined([("a", "", 30, 31), ("b", "1", 40, 42), ("b", "2", 41, 43), ("c", "", 50, 50)])
    second = joined([("b", "2", 41, 41), ("a", "", 30, 30), ("d", "", 60, 60)])
    found = compare_ages(first, second, resamples=100)
    assert (found["n_scans"], found["n_subjects"], found["only_a"], found["only_b"]) == (2, 2, 2, 1)
    assert found["figures"]["mae"]["a"] == pytest.approx(1.5)
    assert found["figures"]["mae"]["b"] == 0


def test_nothing_in_common_is_refused():
    with pytest.raises(ValueError, match="no scan"):
        compare_ages(joined([("a", "", 30, 31)]), joined([("b", "", 30, 31)]))
