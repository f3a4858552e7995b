"""``brainage vision`` from a folder of pictures to a table."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from brainage.cli.main import app

RECIPE = {
    "model": {"image_size": 8, "patch": 4, "dim": 16, "depth": 1, "num_heads": 2, "hidden_dim": 16}
    | {"moe_blocks": [0], "num_experts": 4, "rank": 3},
    "train": {"folds": 0, "epochs": 2, "batch_size": 4, "precision": "32-true"},
}


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, name in enumerate(("dark", "bright")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for index in range(4):
                values = rng.integers(100 * label, 100 * label + 100, (9, 8, 3), dtype=np.uint8)
                Image.fromarray(values).save(tmp_path / "data" / split / name / f"{index}.png")
    (tmp_path / "data" / "val" / "dark" / "bad.png").write_text("text")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path


def brainage(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_train_then_eval(pictures):
    run = pictures / "run"
    outcome = brainage("vision", "train", pictures / "recipe.yaml", "--data", pictures / "data", "-o", run)
    assert outcome.exit_code == 0, outcome.output
    assert "8 images, 1 files left out: top-1" in outcome.output
    assert json.loads((run / "evaluation.json").read_text("utf-8"))["skipped"] == ["dark/bad.png"]
    outcome = brainage("vision", "eval", run / "model.safetensors", "--data", pictures / "data")
    assert outcome.exit_code == 0, outcome.output
    assert "bright" in outcome.output
    assert "images/s" in outcome.output


def test_missing_class_is_one_sentence(pictures):
    (pictures / "data" / "val" / "dark").rename(pictures / "dark")
    (pictures / "data" / "val" / "other").mkdir()
    words = ("vision", "train", pictures / "recipe.yaml", "--data", pictures / "data", "-o", pictures / "run")
    outcome = brainage(*words)
    assert outcome.exit_code == 1
    assert "val: found no folder for dark" in outcome.output


def test_another_kind_of_checkpoint(pictures):
    outcome = brainage("vision", "eval", pictures / "recipe.yaml", "--data", pictures / "data")
    assert outcome.exit_code == 1
    assert "recipe.yaml: found no safetensors file" in outcome.output


def test_wrong_setting_is_a_usage_error(pictures):
    (pictures / "recipe.yaml").write_text(yaml.safe_dump({"model": {"patch": 5}}))
    words = ("vision", "train", pictures / "recipe.yaml", "--data", pictures / "data", "-o", pictures / "run")
    outcome = brainage(*words)
    assert outcome.exit_code == 2
    assert "patch (5) must divide image_size (64)" in outcome.output
