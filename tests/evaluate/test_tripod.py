import pandas as pd

from brainage.evaluate.ages import JoinedAges
from brainage.evaluate.summary import evaluate_ages
from brainage.evaluate.tripod import tripod_items


def evaluated(**columns):
    table = pd.DataFrame(
        {
            "participant_id": ["a", "b", "c", "d"],
            "session_id": "",
            "age": [25.0, 35.0, 55.0, 75.0],
            "predicted_age": [29.0, 33.0, 61.0, 75.0],
            "status": ["ok", "ok", "ok", "warning"],
            "sex": "",
            "site": "",
        }
        | columns
    )
    joined = JoinedAges(table=table, failed=2, without_age=1, not_predicted=3, notes=())
    return {item["item"]: item["answer"] for item in tripod_items(evaluate_ages(joined, resamples=100))}


def test_says_what_is_known_and_what_is_not():
    said = evaluated()
    assert said["21"] == "4 scans of 4 subjects"
    assert "2 scans without a prediction and 1 without a usable age" in said["11"]
    assert "with a warning 1" in said["20a"]
    assert said["14"] == "sex not given, so not examined"
    assert "no prediction interval" in said["15"]
    assert said["23a"].startswith("MAE 3.00 (")


def test_sites_that_each_were_a_fold_were_left_out():
    said = evaluated(site=["x", "x", "y", "y"], fold=[0, 0, 1, 1], sex=["female", "male", "female", "male"])
    assert "each left out of the model" in said["23b"]
    assert "female" in said["14"]
    assert "each also in the training" in evaluated(site=["x", "x", "y", "y"], fold=[0, 1, 0, 1])["23b"]
