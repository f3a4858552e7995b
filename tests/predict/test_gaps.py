from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from brainage.data.participants import read_participants
from brainage.data.true_ages import TrueAges
from brainage.models.weights import TrainedModel
from brainage.predict.gaps import GAP_COLUMNS, gap_columns


def with_bias(model: TrainedModel, slope: float, intercept: float) -> TrainedModel:
    facts = {**model.facts, "age_bias": {"slope": slope, "intercept": intercept}}
    return dataclasses.replace(model, facts=facts)


def test_gaps_by_hand(tiny_model: TrainedModel) -> None:
    # 0.8 * 70 + 10 = 66 is expected at 70. Predicted 68: gap -2, de Lange +2, Cole 58 / 0.8 - 70 = 2.5.
    row = gap_columns(with_bias(tiny_model, 0.8, 10), 68.0, 70.0)
    assert (row["age"], row["gap"], row["gap_cole"], row["gap_de_lange"]) == ("70", "-2.00", "2.50", "2.00")
    assert (row["bias_slope"], row["bias_intercept"]) == ("0.8", "10")


def test_what_is_unknown_is_empty(tiny_model: TrainedModel) -> None:
    uncalibrated = dataclasses.replace(tiny_model, facts={**tiny_model.facts, "age_bias": None})
    assert gap_columns(uncalibrated, 60.0, None) == dict.fromkeys(GAP_COLUMNS, "")
    row = gap_columns(uncalibrated, 60.0, 50.0)
    assert (row["gap"], row["gap_cole"], row["gap_de_lange"]) == ("10.00", "", "")
    assert gap_columns(with_bias(tiny_model, 0.9, 4), 60.0, None)["gap"] == ""


def test_a_line_that_does_not_rise_cannot_be_stretched(tiny_model: TrainedModel) -> None:
    row = gap_columns(with_bias(tiny_model, -0.1, 50), 60.0, 50.0)
    assert (row["gap_cole"], row["gap_de_lange"]) == ("", "15.00")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "participants.tsv"
    path.write_text("participant_id\tage\nsub-01\t30\nsub-02\tn/a\n")
    return path


def test_ages_by_participant(table: Path) -> None:
    ages = TrueAges(read_participants(table))
    assert ages.of("sub-01", "ses-2") == 30
    assert ages.of("sub-02") is None
    assert ages.of("sub-03") is None


def test_ages_by_session_where_the_table_names_them(table: Path) -> None:
    table.write_text("participant_id\tsession_id\tage\nsub-01\tses-1\t30\nsub-01\tses-2\t35\n")
    ages = TrueAges(read_participants(table))
    assert ages.of("sub-01", "ses-2") == 35
    assert ages.of("sub-01") is None
