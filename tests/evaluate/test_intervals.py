import numpy as np
import pytest
from scipy import stats

from brainage.evaluate.intervals import bootstrap_mean, bootstrap_metrics
from brainage.evaluate.metrics import age_metrics


def test_agrees_with_scipy_where_every_subject_has_one_scan():
    gaps = np.random.default_rng(3).gamma(2, 3, size=80)
    ours = bootstrap_mean(gaps, np.arange(80), resamples=20_000)
    theirs = stats.bootstrap((gaps,), np.mean, n_resamples=20_000, method="percentile", rng=5)
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.08)


def test_copies_of_a_scan_are_no_new_evidence():
    gaps, subjects = np.array([1.0, 4.0, 2.5, 7.0]), np.array(["a", "b", "c", "d"])
    once = bootstrap_mean(gaps, subjects)
    assert bootstrap_mean(np.repeat(gaps, 10), np.repeat(subjects, 10)) == pytest.approx(once)


def test_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(11)
    held = 0
    for seed in range(300):
        low, high = bootstrap_mean(rng.exponential(5, size=60), np.arange(60), resamples=500, seed=seed)
        held += low <= 5 <= high
    assert 0.89 <= held / 300 <= 0.98  # 95 % less the known shortfall of percentile intervals at n = 60


def test_is_repeatable_and_wider_for_a_higher_level():
    gaps, subjects = np.arange(30.0), np.arange(30)
    assert bootstrap_mean(gaps, subjects) == bootstrap_mean(gaps, subjects)
    narrow, wide = bootstrap_mean(gaps, subjects, level=0.8), bootstrap_mean(gaps, subjects, level=0.99)
    assert wide.low < narrow.low < 14.5 < narrow.high < wide.high


def test_one_subject_has_no_interval():
    assert np.isnan(bootstrap_mean([1.0, 2.0], ["a", "a"])).all()


def test_refuses_a_level_that_is_no_share():
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_mean([1.0, 2.0], ["a", "b"], level=95)


def test_every_metric_has_its_interval():
    rng = np.random.default_rng(2)
    age = rng.uniform(20, 80, 50)
    predicted = 0.8 * age + 10 + rng.normal(0, 5, 50)
    found = bootstrap_metrics(age, predicted, np.arange(50), resamples=2000)
    metrics = age_metrics(age, predicted).as_dict()
    assert set(found) == set(metrics) - {"n"}
    for name, (low, high) in found.items():
        assert low < metrics[name] < high, name
    # The same draws as for the mean of the absolute gaps.
    alone = bootstrap_mean(np.abs(predicted - age), np.arange(50), resamples=2000)
    assert found["mae"] == pytest.approx(alone)
