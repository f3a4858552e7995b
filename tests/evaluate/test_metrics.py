import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from brainage.evaluate.metrics import age_metrics, age_moments, leave_one_out_mean, metrics_of_totals

YEARS = st.floats(0, 120, allow_nan=False).map(lambda year: round(year, 2))


def test_hand_worked():
    # gaps +2, 0, -4: MAE 6/3; RMSE sqrt(20/3); mean -2/3. Ages about their mean 40: -20, 0, 20 (squares 800).
    # R2 1 - 20/800; slope of the gap (-20*2 + 20*-4)/800.
    metrics = age_metrics([20, 40, 60], [22, 40, 56])
    assert metrics.n == 3
    assert metrics.mae == pytest.approx(2.0)
    assert metrics.rmse == pytest.approx(math.sqrt(20 / 3))
    assert metrics.mean_gap == pytest.approx(-2 / 3)
    assert metrics.r2 == pytest.approx(0.975)
    assert metrics.gap_slope == pytest.approx(-0.15)


@given(arrays(float, 12, elements=YEARS, unique=True), arrays(float, 12, elements=YEARS, unique=True))
def test_agrees_with_scikit_learn(age, predicted):
    metrics = age_metrics(age, predicted)
    assert metrics.mae == pytest.approx(mean_absolute_error(age, predicted))
    assert metrics.rmse == pytest.approx(root_mean_squared_error(age, predicted))
    assert metrics.r2 == pytest.approx(r2_score(age, predicted))
    assert metrics.gap_slope == pytest.approx(np.polyfit(age, predicted - age, 1)[0], abs=1e-6)


def test_a_constant_prediction_has_slope_minus_one_and_no_correlation():
    metrics = age_metrics([20, 40, 75], [45, 45, 45])
    assert metrics.gap_slope == pytest.approx(-1)
    assert math.isnan(metrics.pearson_r)


def test_one_scan_has_an_error_and_nothing_else():
    metrics = age_metrics([50], [53])
    assert (metrics.mae, metrics.mean_gap) == (3, 3)
    assert math.isnan(metrics.r2)
    assert math.isnan(metrics.gap_slope)


@pytest.mark.parametrize(
    ("age", "predicted"), [([], []), ([1, 2], [1]), ([1, np.nan], [1, 2]), ([1], [np.inf])]
)
def test_refuses_what_it_cannot_compare(age, predicted):
    with pytest.raises(ValueError, match="must be"):
        age_metrics(age, predicted)


def test_the_mean_predictor_leaves_all_scans_of_a_subject_out():
    # a is scanned at 20 and 22, b at 40, c at 60.
    predicted = leave_one_out_mean([20, 22, 40, 60], ["a", "a", "b", "c"])
    np.testing.assert_allclose(predicted, [50, 50, 34, 82 / 3])


def test_the_mean_predictor_of_one_subject_knows_nothing():
    assert np.isnan(leave_one_out_mean([20, 22], ["a", "a"])).all()


@given(arrays(float, 12, elements=YEARS, unique=True), arrays(float, 12, elements=YEARS, unique=True))
def test_summed_moments_give_the_same_metrics(age, predicted):
    metrics = age_metrics(age, predicted).as_dict()
    metrics.pop("n")
    again = metrics_of_totals(age_moments(age, predicted).sum(0))
    assert metrics.keys() == again.keys()
    for name, value in metrics.items():
        assert again[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
