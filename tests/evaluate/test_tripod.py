import pandas as pd

from brainage.evaluate.ages import JoinedAges
from brainage.evaluate.summary import evaluate_ages
from brainage.evaluate.tripod import OPEN_ITEMS, tripod_items


def evaluated(made_by=None, **columns):
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
    joined = JoinedAges(table, failed=2, without_age=1, not_predicted=3, notes=(), made_by=made_by or {})
    return {item["item"]: item["answer"] for item in tripod_items(evaluate_ages(joined, resamples=100))}


def test_says_what_is_known_and_what_is_not():
    said = evaluated()
    assert said["21"] == "4 scans of 4 subjects"
    assert "2 scans without a prediction and 1 without a usable age" in said["11"]
    assert "with a warning 1" in said["20a"]
    assert said["14"] == "sex not given, so not examined"
    assert "no prediction interval" in said["15"]
    assert said["23a"].startswith("MAE 3.00 (")
    assert said["12a"].startswith("for evaluation; whether the model learned")
    assert said["12g"] == "which model made them is not in the file"
    assert said["7"].endswith("leaves 1 of the scans compared with a warning")


def test_sites_that_each_were_a_fold_were_left_out():
    said = evaluated(site=["x", "x", "y", "y"], fold=[0, 0, 1, 1], sex=["female", "male", "female", "male"])
    assert "each left out of the model" in said["23b"]
    assert "female" in said["14"]
    assert "each also in the training" in evaluated(site=["x", "x", "y", "y"], fold=[0, 1, 0, 1])["23b"]


def test_the_model_is_named():
    said = evaluated(
        made_by={
            "model": ("ermoe-ba-t1",),
            "model_fingerprint": ("ab12",),
            "preprocessing_fingerprint": ("cd34",),
        },
        fold=[0, 0, 1, 1],
    )
    assert said["12g"] == "by brainage predict, model ermoe-ba-t1 (ab12)"
    assert said["7"].startswith("brainage preprocess, fingerprint cd34; ")
    assert said["12a"].endswith("2 folds")


def test_every_item_of_the_checklist_is_filled_or_left_to_the_authors():
    """The numbers of the checklist's items; ranges of OPEN_ITEMS are written out."""
    lettered = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc"}
    lettered |= {23: "ab", 27: "abc"}
    items = [f"{n}{letter}" for n in range(1, 28) for letter in lettered.get(n, [""])]
    filled = list(evaluated())
    left = set()
    for numbers, _ in OPEN_ITEMS:
        for part in numbers.split(", "):
            first, _, last = part.partition("-")
            last = first[:-1] + last if last.isalpha() else last or first  # 8b-c is 8b to 8c
            left |= set(items[items.index(first) : items.index(last) + 1])
    assert not left & set(filled)
    assert [item for item in items if item not in left and item not in filled] == []
    assert filled == sorted(filled, key=items.index)
