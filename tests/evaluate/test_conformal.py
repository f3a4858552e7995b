import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainage.evaluate.conformal import conformal_quantile, cross_conformal, fit_intervals


def test_the_quantile_is_the_rank_that_exchangeability_asks_for():
    scores = [3.0, 1, 7, 2, 5, 9, 4, 8, 6]  # nine scores; rank ceil(10 * 0.9) = 9, ceil(10 * 0.5) = 5
    assert conformal_quantile(scores, 0.9) == 9
    assert conformal_quantile(scores, 0.5) == 5


@pytest.mark.parametrize("count", [0, 1, 8])
def test_too_few_subjects_promise_nothing(count):
    assert conformal_quantile(np.ones(count), 0.9) is None
    assert fit_intervals(np.ones(count), np.ones(count), 0.9) is None


def heteroscedastic(rng, count):
    """Errors that grow fourfold from young to old."""
    predicted = rng.uniform(20, 80, count)
    return predicted, rng.normal(0, 2 + (predicted - 20) / 10, count)


def test_covers_new_subjects_overall_and_at_both_ends():
    rng = np.random.default_rng(0)
    adaptive, constant = [], []
    for _ in range(60):
        calibration, (predicted, residual) = heteroscedastic(rng, 120), heteroscedastic(rng, 200)
        ends = [predicted < 40, predicted > 60]
        inside = np.abs(residual) <= fit_intervals(*calibration, 0.9).half_width(predicted)
        adaptive.append([inside[end].mean() for end in ends])
        same = np.abs(residual) <= conformal_quantile(np.abs(calibration[1]), 0.9)
        constant.append([same[end].mean() for end in ends])
    young, old = np.mean(adaptive, axis=0)
    # At the ends the scale is smoothed from one side alone, which widens the narrow end a little.
    assert young == pytest.approx(0.9, abs=0.045)
    assert old == pytest.approx(0.9, abs=0.03)
    # One width for all holds nearly all of the young and too few of the old.
    young, old = np.mean(constant, axis=0)
    assert young > 0.97
    assert old < 0.84


def test_covers_at_least_what_it_promises_when_calibrated_on_few():
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(400):
        intervals = fit_intervals(*heteroscedastic(rng, 25), 0.8)
        predicted, residual = heteroscedastic(rng, 20)
        inside.append(np.mean(np.abs(residual) <= intervals.half_width(predicted)))
    assert 0.78 <= np.mean(inside) <= 0.88


@given(st.integers(0, 500), st.floats(0.1, 10), st.floats(-40, 40))
def test_errors_scale_the_widths_and_a_shift_of_all_ages_changes_none(seed, factor, shift):
    rng = np.random.default_rng(seed)
    predicted, residual = heteroscedastic(rng, 40)
    at = np.array([20.0, 50.0, 80.0])
    widths = fit_intervals(predicted, residual, 0.9).half_width(at)
    np.testing.assert_allclose(
        fit_intervals(predicted, factor * residual, 0.9).half_width(at), factor * widths
    )
    moved = fit_intervals(predicted + shift, residual, 0.9).half_width(at + shift)
    np.testing.assert_allclose(moved, widths)


def test_far_from_everybody_the_width_is_that_of_all_subjects():
    rng = np.random.default_rng(2)
    predicted, residual = heteroscedastic(rng, 100)
    intervals = fit_intervals(predicted, residual, 0.9)
    # A hundred equal shares: 0.9 lies halfway between the 90th smallest error and the 91st.
    assert intervals.half_width(400.0) == pytest.approx(
        intervals.quantile * np.sort(np.abs(residual))[89:91].mean()
    )


def test_where_two_groups_are_far_apart_each_has_the_width_of_its_own_errors():
    small, large = np.linspace(0.1, 2, 400), np.linspace(5, 20, 400)
    intervals = fit_intervals(np.repeat([20.0, 90.0], 400), np.concatenate((small, large)), 0.9)
    young, old = intervals.half_width([20, 90]) / intervals.quantile
    assert young == pytest.approx(np.quantile(small, 0.9), rel=0.03)
    assert old == pytest.approx(np.quantile(large, 0.9), rel=0.03)
    assert intervals.quantile == pytest.approx(1, abs=0.05)


def test_a_model_without_error_has_intervals_without_width():
    assert fit_intervals(np.arange(20.0), np.zeros(20), 0.9).half_width(5.0) == 0


def test_where_most_do_not_err_the_intervals_still_hold_those_who_do():
    # Three of twenty err: to hold nine in ten, the two smaller errors must be inside.
    residual = np.zeros(20)
    residual[[3, 9, 15]] = 5, 20, 30
    assert 20 <= fit_intervals(np.full(20, 40.0), residual, 0.9).half_width(40.0) < np.inf


def test_no_subject_has_a_part_in_the_scale_that_it_is_divided_by():
    rng = np.random.default_rng(4)
    predicted, residual = heteroscedastic(rng, 9)
    quantiles = []
    for error in (1e3, 2e3):
        # Of nine subjects the largest quotient is the quantile: this one's.
        residual[5] = error
        quantiles.append(fit_intervals(predicted, residual, 0.9).quantile)
    assert quantiles[1] == pytest.approx(2 * quantiles[0])


def test_refuses_a_level_that_is_no_share_unequal_vectors_and_what_is_not_finite():
    with pytest.raises(ValueError, match="finite"):
        fit_intervals(np.ones(20), np.r_[np.ones(19), np.nan], 0.9)
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_intervals(np.ones(20), np.ones(20), 90)
    with pytest.raises(ValueError, match="equal vectors"):
        fit_intervals(np.ones(20), np.ones(21), 0.9)


def test_a_fold_has_no_part_in_its_own_intervals():
    rng = np.random.default_rng(3)
    predicted, residual = heteroscedastic(rng, 60)
    fold = np.arange(60) % 3
    before = cross_conformal(predicted, predicted - residual, fold, 0.9)
    wild = residual + 100.0 * (fold == 1)
    after = cross_conformal(predicted, predicted - wild, fold, 0.9)
    np.testing.assert_allclose(after[fold == 1], before[fold == 1])
    assert (after[fold != 1] > before[fold != 1]).all()
    assert np.isnan(cross_conformal(predicted[:6], predicted[:6], fold[:6], 0.9)).all()
