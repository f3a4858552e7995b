import json

import pandas as pd
import pytest

from brainage.evaluate.ages import JoinedAges
from brainage.evaluate.summary import age_band, evaluate_ages


def joined(rows):
    table = pd.DataFrame(rows, columns=["participant_id", "age", "predicted_age", "sex", "site"])
    table["session_id"], table["status"] = "", "ok"
    return JoinedAges(table=table, failed=2, without_age=1, not_predicted=0, notes=("a note",))


@pytest.fixture
def four():
    return joined(
        [
            ("a", 25.0, 29.0, "female", "x"),
            ("b", 35.0, 33.0, "male", "x"),
            ("c", 8.0, 14.0, "", "y"),
            ("d", 36.0, 36.0, "male", "y"),
        ]
    )


def test_headline_and_mean_predictor(four):
    result = evaluate_ages(four, resamples=500)
    assert result["mae"] == pytest.approx(3.0)
    assert result["mae_ci95"][0] < 3.0 < result["mae_ci95"][1]
    # Means of the others: (35+8+36)/3, (25+8+36)/3, (25+35+36)/3, (25+35+8)/3.
    # Absolute gaps 4/3, 12, 24, 40/3.
    assert result["mean_predictor"]["mae"] == pytest.approx((4 / 3 + 12 + 24 + 40 / 3) / 4)
    assert "leave one subject out" in result["mean_predictor"]["kind"]
    assert (result["n_scans"], result["n_subjects"], result["n_failed"]) == (4, 4, 2)


def test_groups_partition_the_scans_in_order(four):
    result = evaluate_ages(four, resamples=200)
    assert [group["group"] for group in result["by_age_band"]] == ["0-9", "20-29", "30-39"]
    assert [group["mae"] for group in result["by_age_band"]] == [6, 4, 1]
    assert {group["group"]: group["n_scans"] for group in result["by_sex"]} == {
        "female": 1,
        "male": 2,
        "unknown": 1,
    }
    for groups in ("by_age_band", "by_sex", "by_site"):
        total = sum(group["mae"] * group["n_scans"] for group in result[groups])
        assert total / 4 == pytest.approx(result["mae"])


def test_one_subject_gives_json_without_nan():
    result = evaluate_ages(joined([("a", 30.0, 33.0, "", "")]), resamples=200)
    assert result["mae"] == 3
    assert result["pearson_r"] is None
    assert result["mean_predictor"]["mae"] is None
    assert result["by_sex"] == []
    json.dumps(result, allow_nan=False)


def test_bands_start_at_whole_decades():
    assert age_band(pd.Series([9.9, 10, 70])).tolist() == ["0-9", "10-19", "70-79"]
