import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainage.evaluate.bias import (
    AgeBias,
    correct_beheshti,
    correct_cole,
    correct_de_lange,
    fit_age_bias,
)
from brainage.evaluate.metrics import age_metrics


@pytest.fixture
def biased():
    """Ages and predictions pulled towards 50, as every regression with r < 1 does."""
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 80, 400)
    return age, 0.7 * age + 15 + rng.normal(0, 5, 400)


def test_recovers_a_known_line():
    age = np.array([20.0, 50.0, 80.0])
    bias = fit_age_bias(age, 0.6 * age + 18)
    assert (bias.slope, bias.intercept) == pytest.approx((0.6, 18))


@given(st.floats(0.2, 1.5), st.floats(-20, 40))
def test_every_correction_undoes_an_exact_line(slope, intercept):
    age = np.linspace(20, 80, 7)
    predicted, bias = slope * age + intercept, AgeBias(slope, intercept)
    np.testing.assert_allclose(correct_cole(predicted, bias), age)
    np.testing.assert_allclose(correct_de_lange(predicted, age, bias), age)
    np.testing.assert_allclose(correct_beheshti(predicted, age, bias), age)


def test_corrected_gaps_no_longer_depend_on_age(biased):
    age, predicted = biased
    bias = fit_age_bias(age, predicted)
    assert age_metrics(age, predicted).gap_slope == pytest.approx(-0.3, abs=0.03)
    for corrected in (correct_cole(predicted, bias), correct_de_lange(predicted, age, bias)):
        assert age_metrics(age, corrected).gap_slope == pytest.approx(0, abs=1e-9)
        assert age_metrics(age, corrected).mean_gap == pytest.approx(0, abs=1e-9)


def test_beheshti_and_de_lange_are_the_same_line(biased):
    age, predicted = biased
    bias = fit_age_bias(age, predicted)
    np.testing.assert_allclose(correct_beheshti(predicted, age, bias), correct_de_lange(predicted, age, bias))


def test_stretching_costs_error_and_using_the_age_hides_it(biased):
    # Why headline figures stay uncorrected: Cole's stretch keeps r, de Lange's shift raises it.
    age, predicted = biased
    bias = fit_age_bias(age, predicted)
    plain = age_metrics(age, predicted).pearson_r
    assert age_metrics(age, correct_cole(predicted, bias)).pearson_r == pytest.approx(plain)
    assert age_metrics(age, correct_de_lange(predicted, age, bias)).pearson_r > plain


def test_refuses_a_line_it_cannot_fit_or_invert():
    with pytest.raises(ValueError, match="differing ages"):
        fit_age_bias([40, 40, 40], [41, 42, 43])
    with pytest.raises(ValueError, match="differing ages"):
        fit_age_bias([40, 50], [41, 42])
    with pytest.raises(ValueError, match="cannot be stretched"):
        correct_cole([50.0], AgeBias(-0.1, 55))
