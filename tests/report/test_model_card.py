import numpy as np
import pandas as pd
import pytest

from brainage.config import BrainAgeRecipe
from brainage.report.model_card import write_model_card

FACTS = {
    "name": "test-model",
    "fingerprint": "abc",
    "preprocessing_fingerprint": "def",
    "cohort": "folder",
    "num_scans": 60,
    "num_subjects": 60,
    "age_range": [20.0, 79.0],
    "age_bias": {"slope": 0.9, "intercept": 5.0},
    "unusual_limit": 1.1,
    "unusual_part_limit": 6.2,
    "versions": {"brainage": "0", "torch": "2"},
}


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    age = np.linspace(20, 79, 60)
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(60)],
            "session_id": "",
            "age": age,
            "fold": np.arange(60) % 5,
            "voxel_ridge": age + rng.normal(0, 9, 60),
            "ermoe_ba": age + rng.normal(0, 6, 60),
        }
    )


def test_holds_the_runs_figures_and_the_recipes_words(tmp_path, predictions):
    recipe = BrainAgeRecipe.model_validate(
        {
            "card": {"cohort": "Some people", "scanner": "1.5 T", "limits": ["One site."]},
            "include": {"cdr": 0},
        }
    )
    write_model_card(tmp_path / "card.md", FACTS, recipe, predictions, model="ermoe_ba", megabytes=6.13)
    text = (tmp_path / "card.md").read_text("utf-8")
    mae = (predictions["ermoe_ba"] - predictions["age"]).abs().mean()
    assert f"| this model | {mae:.2f} (" in text
    assert "voxel ridge, same folds" in text
    for said in (
        "Some people: 60 scans of 60 subjects, 20 to 79 years, cdr = 0",
        "1.5 T",
        "- One site.",
        "6.1 MB",
    ):
        assert said in text
    assert text.count("\n| 20-29 | 10 |") == 1
    assert "of the 90 % intervals hold the age" in text
    assert "Not to be used for" in text
    assert "\n\n\n" not in text


def test_an_unmeasured_model_says_so(tmp_path):
    write_model_card(
        tmp_path / "card.md", FACTS | {"age_bias": None}, BrainAgeRecipe(), None, model="ermoe_ba"
    )
    text = (tmp_path / "card.md").read_text("utf-8")
    assert "Not measured" in text
    assert "not stated in the recipe" in text
