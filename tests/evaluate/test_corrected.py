import numpy as np
import pandas as pd
import pytest

from brainage.evaluate.corrected import CROSS_FITTED, STORED, corrected_figures, corrected_gaps, site_left_out


@pytest.fixture
def cohort():
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 80, 60)
    predicted = 0.7 * age + 15 + rng.normal(0, 4, 60)
    who = np.repeat([f"sub-{i:02d}" for i in range(30)], 2)
    return pd.DataFrame({"participant_id": who, "age": age, "predicted_age": predicted, "site": "A"})


def test_the_models_own_line_is_used_where_the_file_has_it(cohort):
    table = cohort.assign(bias_slope=0.7, bias_intercept=15.0)
    gaps, source = corrected_gaps(table)
    assert source == STORED
    np.testing.assert_allclose(gaps, table["predicted_age"] - 0.7 * table["age"] - 15)


def test_otherwise_every_subject_is_corrected_by_the_others(cohort):
    gaps, source = corrected_gaps(cohort)
    assert source == CROSS_FITTED
    for who in ("sub-03", "sub-29"):
        mine = cohort["participant_id"] == who
        line = np.polyfit(cohort.loc[~mine, "age"], cohort.loc[~mine, "predicted_age"], 1)
        expected = cohort.loc[mine, "predicted_age"] - np.polyval(line, cohort.loc[mine, "age"])
        np.testing.assert_allclose(gaps[mine], expected)


def test_what_a_subject_deviates_by_is_not_corrected_away(cohort):
    mine = cohort["participant_id"] == "sub-03"
    before, _ = corrected_gaps(cohort)
    after, _ = corrected_gaps(cohort.assign(predicted_age=cohort["predicted_age"] + 30 * mine))
    np.testing.assert_allclose(after[mine] - before[mine], 30)


def test_too_few_subjects_have_no_line(cohort):
    assert corrected_gaps(cohort[:6]) is None
    assert corrected_gaps(cohort.assign(age=40.0)) is None


def test_figures(cohort):
    figures = corrected_figures(cohort, *corrected_gaps(cohort), {"resamples": 200})
    assert abs(figures["mean_gap"]) < 0.5
    assert abs(figures["gap_slope"]) < 0.05
    assert figures["mean_gap_ci95"][0] < figures["mean_gap"] < figures["mean_gap_ci95"][1]


def test_a_site_that_reads_older_shows_its_shift(cohort):
    other = cohort.assign(site="B", predicted_age=cohort["predicted_age"] + 8)
    found = site_left_out(pd.concat([cohort, other]), "B", resamples=200)
    assert found["mean_gap"] == pytest.approx(8, abs=0.5)
    assert site_left_out(cohort, "A") is None
