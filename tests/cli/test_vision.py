"""``brainage vision`` from a folder of pictures to a table."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from brainage.cli.main import app
from brainage.models.classifier_weights import TrainedClassifier, save_classifier
from brainage.models.image_classifier import ImageClassifier
from brainage.vision_config import VisionRecipe

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
    words = (run / "model.safetensors", "--data", pictures / "data", "-o", pictures / "eval")
    outcome = brainage("vision", "eval", *words)
    assert outcome.exit_code == 0, outcome.output
    assert "bright" in outcome.output
    result = json.loads((pictures / "eval" / "evaluation.json").read_text("utf-8"))
    matrix = pd.read_csv(pictures / "eval" / "confusion.csv", index_col="class")
    assert matrix.sum(axis=1).tolist() == [4, 4]
    assert np.trace(matrix.to_numpy()) == result["top1"] * 8
    assert (pictures / "eval" / "confusion.png").exists()
    shares = pd.read_csv(pictures / "eval" / "experts_by_class.csv")
    assert shares[["block", "class"]].to_numpy().tolist() == [[0, "bright"], [0, "dark"]]
    np.testing.assert_allclose(shares.filter(like="expert_").sum(axis=1), 1, atol=1e-3)
    for name in ("classes.csv", "confusion.csv", "confusion.png"):
        assert (run / name).read_bytes() == (pictures / "eval" / name).read_bytes()
    assert "images/s" in outcome.output
    model, data = run / "model.safetensors", pictures / "data"
    outcome = brainage("vision", "probe", model, "--data", data, "--shots", 1, "--shots", 3)
    assert outcome.exit_code == 0, outcome.output
    assert "images a class" in outcome.output
    chosen = [data / "val" / "dark" / name for name in ("0.png", "1.png")]
    outcome = brainage("vision", "experts", model, *chosen, "-o", pictures / "experts.png")
    assert outcome.exit_code == 0, outcome.output
    with Image.open(pictures / "experts.png") as sheet:
        assert sheet.width > 2 * 192
    outcome = brainage("vision", "experts", model, *chosen, "-o", pictures / "experts.png", "--block", 1)
    assert outcome.exit_code == 2
    assert "block = 1: must be one of the blocks with experts (0)" in outcome.output
    outcome = brainage(
        "vision", "experts", model, data / "val" / "dark" / "bad.png", "-o", pictures / "e.png"
    )
    assert outcome.exit_code == 1
    assert "bad.png: found no readable image" in outcome.output


def test_upcycle_tells_what_it_costs(pictures):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=2)
    transformers.ViTForImageClassification(config).save_pretrained(pictures / "vit")
    model = {**RECIPE["model"], "depth": 2, "hidden_dim": 32, "moe_blocks": [1], "pooling": "cls"}
    (pictures / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "model": model}))
    words = (
        "--recipe",
        pictures / "recipe.yaml",
        "--data",
        pictures / "data",
        "-o",
        pictures / "up.safetensors",
    )
    outcome = brainage("vision", "upcycle", pictures / "vit" / "model.safetensors", *words)
    assert outcome.exit_code == 0, outcome.output
    rows = [line.split("│")[2:5] for line in outcome.output.splitlines() if "│" in line]
    # Experts of a shared basis are the network itself: the same figures.
    assert len(rows) == 2
    assert rows[0] == rows[1]
    assert brainage("vision", "eval", pictures / "up.safetensors", "--data", pictures / "data").exit_code == 0
    again = {**RECIPE, "model": model, "init": str(pictures / "vit" / "model.safetensors")}
    (pictures / "recipe.yaml").write_text(yaml.safe_dump(again))
    words = (pictures / "recipe.yaml", "--data", pictures / "data", "-o", pictures / "tuned")
    assert brainage("vision", "train", *words).exit_code == 0
    assert str(pictures).encode() not in (pictures / "tuned" / "model.safetensors").read_bytes()


def test_training_begins_from_another_and_a_file_that_does_not_fit_leaves_the_folder_free(pictures):
    wider = {**RECIPE, "model": {**RECIPE["model"], "dim": 32}}
    for name, settings in (("first", RECIPE), ("wide", wider)):
        (pictures / f"{name}.yaml").write_text(yaml.safe_dump(settings))
        words = (pictures / f"{name}.yaml", "--data", pictures / "data", "-o", pictures / name)
        assert brainage("vision", "train", *words).exit_code == 0
    begin = ("vision", "train", pictures / "first.yaml", "--data", pictures / "data", "-o", pictures / "more")
    outcome = brainage(*begin, "--init", pictures / "wide" / "model.safetensors")
    assert outcome.exit_code == 2
    assert "dim = 16: must be 32, as in model.safetensors" in " ".join(outcome.output.split())
    outcome = brainage(*begin, "--init", pictures / "first" / "model.safetensors")
    assert outcome.exit_code == 0, outcome.output
    kept = json.loads((pictures / "more" / "settings.json").read_text())
    with (pictures / "first" / "model.safetensors").open("rb") as file:
        assert kept["data.init"] == hashlib.file_digest(file, "sha256").hexdigest()[:16]
    assert brainage(*begin).exit_code == 1


def test_missing_class_is_one_sentence(pictures):
    (pictures / "data" / "val" / "dark").rename(pictures / "dark")
    (pictures / "data" / "val" / "other").mkdir()
    words = ("vision", "train", pictures / "recipe.yaml", "--data", pictures / "data", "-o", pictures / "run")
    outcome = brainage(*words)
    assert outcome.exit_code == 1
    assert "val: found no folder for dark" in outcome.output


def test_of_many_classes_the_most_confused_are_told(tmp_path):
    classes = tuple(f"c{number:02}" for number in range(51))
    for name in classes:
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "val" / name / "0.png")
    settings = VisionRecipe.model_validate(RECIPE)
    model = ImageClassifier(settings.model, 51)
    model.head.bias.data[7] = 1
    save_classifier(tmp_path / "m.safetensors", TrainedClassifier(model, settings, classes))
    words = ("vision", "eval", tmp_path / "m.safetensors", "--data", tmp_path, "-o", tmp_path / "eval")
    outcome = brainage(*words)
    assert outcome.exit_code == 0, outcome.output
    assert "Most confused" in outcome.output
    assert len([line for line in outcome.output.splitlines() if "│ c07" in line]) == 20
    assert sorted(path.name for path in (tmp_path / "eval").iterdir()) == [
        "classes.csv",
        "confusion.csv",
        "evaluation.json",
        "experts_by_class.csv",
    ]


def test_a_checkpoint_for_other_classes(pictures):
    """Evaluated, and resumed."""
    data, run = pictures / "data", pictures / "run"
    train = ("vision", "train", pictures / "recipe.yaml", "--data", data, "-o", run)
    assert brainage(*train).exit_code == 0
    for split in ("train", "val"):
        (data / split / "grey").mkdir()
        Image.new("RGB", (8, 8), (90, 90, 90)).save(data / split / "grey" / "0.png")
    outcome = brainage("vision", "eval", run / "model.safetensors", "--data", data)
    assert outcome.exit_code == 1
    assert "val: found folders of unknown classes: grey; expected the 2 classes" in outcome.output
    outcome = brainage(*train)
    assert outcome.exit_code == 1
    assert "settings.json: found a training with data.classes" in outcome.output
    assert "data.images = 8; expected" in outcome.output


def test_a_published_head_for_other_classes_begins_anew(pictures, caplog):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=7)
    transformers.ViTForImageClassification(config).save_pretrained(pictures / "vit")
    recipe = {**RECIPE, "model": {**RECIPE["model"], "pooling": "cls"}}
    recipe["init"] = str(pictures / "vit" / "model.safetensors")
    (pictures / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = ("vision", "train", pictures / "recipe.yaml", "--data", pictures / "data", "-o", pictures / "run")
    with caplog.at_level("WARNING", logger="brainage"):
        outcome = brainage(*words)
    assert outcome.exit_code == 0, outcome.output
    assert "The head of model.safetensors is for 7 classes, not 2: it begins anew" in (
        caplog.text + outcome.output
    )


def test_another_kind_of_checkpoint(pictures):
    outcome = brainage("vision", "eval", pictures / "recipe.yaml", "--data", pictures / "data")
    assert outcome.exit_code == 1
    assert "recipe.yaml: found no safetensors file" in outcome.output


def test_wrong_setting_is_a_usage_error(pictures):
    (pictures / "recipe.yaml").write_text(yaml.safe_dump({"model": {"patch": 5}}))
    words = ("vision", "train", pictures / "recipe.yaml", "--data", pictures / "data", "-o", pictures / "run")
    outcome = brainage(*words)
    assert outcome.exit_code == 2
    assert "Error: model: patch (5) must divide image_size (64)." in outcome.output
    (pictures / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    outcome = brainage(*words, "--devices", 3)
    assert outcome.exit_code == 2
    assert "Error: train: batch_size (4) must be a multiple of devices x num_nodes x accumulate (3)" in (
        outcome.output
    )
