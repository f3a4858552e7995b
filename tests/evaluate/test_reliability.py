import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainage.evaluate.reliability import bland_altman, intraclass_correlation, retest

# Table 2 of Shrout & Fleiss 1979: six targets by four judges.
SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_shrout_and_fleiss():
    # Their table 4: ICC(2,1) = .29, ICC(3,1) = .71; the intervals are those of McGraw & Wong on this example.
    icc = intraclass_correlation(SHROUT_FLEISS)
    assert icc["icc_2_1"] == pytest.approx(0.29, abs=0.005)
    assert icc["icc_3_1"] == pytest.approx(0.71, abs=0.006)
    assert (icc["icc_2_1_low"], icc["icc_2_1_high"]) == pytest.approx((0.02, 0.76), abs=0.005)
    assert (icc["icc_3_1_low"], icc["icc_3_1_high"]) == pytest.approx((0.34, 0.95), abs=0.005)


@given(st.floats(-20, 20), st.integers(0, 1000))
def test_an_offset_costs_agreement_but_not_consistency(offset, seed):
    rng = np.random.default_rng(seed)
    first = rng.uniform(20, 80, 30)
    pair = np.stack([first, first + rng.normal(0, 3, 30)], axis=1)
    moved = pair + np.array([0, offset])
    plain, shifted = intraclass_correlation(pair), intraclass_correlation(moved)
    assert shifted["icc_3_1"] == pytest.approx(plain["icc_3_1"])
    assert shifted["icc_2_1"] <= shifted["icc_3_1"] + 0.01
    for icc in (plain, shifted):
        assert icc["icc_2_1_low"] <= icc["icc_2_1"] <= icc["icc_2_1_high"]
        assert icc["icc_3_1_low"] <= icc["icc_3_1"] <= icc["icc_3_1_high"]


def test_the_same_twice_is_perfect_and_no_difference_between_people_is_nothing():
    assert intraclass_correlation([[1, 1], [2, 2], [5, 5]])["icc_2_1"] == 1
    assert np.isnan(intraclass_correlation([[1, 2], [1, 2], [1, 2]])["icc_2_1"])


def test_bland_altman_by_hand():
    # Differences 1, 2, 3: bias 2, sd 1; t(0.975, 2) = 4.303.
    agreement = bland_altman([10, 20, 30], [11, 22, 33])
    assert (agreement["bias"], agreement["sd"]) == (2, 1)
    assert (agreement["limit_low"], agreement["limit_high"]) == pytest.approx((0.04, 3.96))
    assert agreement["bias_high"] - 2 == pytest.approx(4.303 / np.sqrt(3), abs=1e-3)


def scans(rows):
    return pd.DataFrame(rows, columns=["participant_id", "session_id", "age", "predicted_age"])


def test_retest_takes_the_years_between_scans_away():
    # Two years later each is predicted exactly two years older; a third scan and single scans do not count.
    rows = [(who, "ses-1", age, age + 3) for who, age in (("a", 30), ("b", 50), ("c", 70), ("d", 40))]
    rows += [(who, "ses-2", age + 2, age + 5) for who, age in (("a", 30), ("b", 50), ("c", 70))]
    found = retest(scans([*rows, ("a", "ses-3", 40, 99)]))
    assert found["n_subjects"] == 3
    assert found["median_years_between"] == 2
    assert (found["bias"], found["sd"], found["icc_2_1"]) == (0, 0, 1)


def test_two_pairs_are_too_few():
    assert retest(scans([("a", "", 30, 31), ("a", "", 30, 32), ("b", "", 40, 41), ("b", "", 40, 42)])) is None


@pytest.mark.parametrize("ratings", [[[1, 2]], [[1], [2]], [1, 2], [[1, np.nan], [2, 3]]])
def test_refuses_what_has_no_pairs(ratings):
    with pytest.raises(ValueError, match="must be numbers"):
        intraclass_correlation(ratings)
