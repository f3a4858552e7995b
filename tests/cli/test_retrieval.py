"""``brainage retrieval`` from drawn pictures to a contact sheet."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from brainage.cli.main import app

TOWER = {"dim": 16, "depth": 1, "num_heads": 2, "hidden_dim": 16, "num_experts": 4, "rank": 3}
RECIPE = {
    "image": {**TOWER, "image_size": 8, "patch": 4, "moe_blocks": [0]},
    "text": {**TOWER, "length": 6, "moe_blocks": [0], "num_experts": 3, "router": "vmoe"},
    "tokenizer": {"vocabulary": 300},
    "embed_dim": 8,
    "train": {"folds": 0, "epochs": 2, "batch_size": 4, "precision": "32-true", "checkpoint_every": 1},
}


def brainage(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("retrieval")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    entries = []
    for index in range(12):
        dark = index % 2 == 0
        values = rng.integers(0 if dark else 150, 100 if dark else 255, (9, 8, 3), dtype=np.uint8)
        Image.fromarray(values).save(root / "images" / f"{index}.png")
        texts = ["a dark picture", "night"] if dark else ["a bright picture, almost white all over it"]
        split = "train" if index < 8 else "val"
        sentences = [{"raw": text} for text in texts]
        entries.append({"filename": f"{index}.png", "split": split, "sentences": sentences})
    entries.append({"filename": "gone.png", "split": "val", "sentences": [{"raw": "nothing"}]})
    (root / "captions.json").write_text(json.dumps({"images": entries}))
    (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    data = ("--captions", root / "captions.json", "--images", root / "images")
    outcome = brainage("retrieval", "train", root / "recipe.yaml", *data, "-o", root / "run")
    assert outcome.exit_code == 0, outcome.output
    assert "4 images, 6 captions, 1 images left out, 2 captions cut" in outcome.output
    assert "Trained on 8 images with 12 captions" in outcome.output
    return root, data


def test_eval(trained, tmp_path):
    root, data = trained
    words = ("retrieval", "eval", root / "run" / "model.safetensors", *data, "--split", "val")
    outcome = brainage(*words, "--block", 2, "--json", tmp_path / "r.json")
    assert outcome.exit_code == 0, outcome.output
    assert "mean of 2 blocks" in outcome.output
    result = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert result["text_to_image_r5"] == 1
    assert result["skipped"] == ["gone.png"]
    outcome = brainage(*words[:-1], "test")
    assert outcome.exit_code == 1
    assert "no image of the split 'test'; expected one of train, val" in outcome.output


def test_search_builds_an_index_and_needs_the_images_no_more(trained, tmp_path):
    root, data = trained
    words = ("retrieval", "search", root / "run" / "model.safetensors", "--index", tmp_path / "index")
    outcome = brainage(*words, "a dark picture")
    assert outcome.exit_code == 1
    assert "index: found no index" in outcome.output
    outcome = brainage(
        *words, "a dark picture", *data, "--split", "train", "--sheet", tmp_path / "sheet.png", "--top", 6
    )
    assert outcome.exit_code == 0, outcome.output
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 5 * 160
    sheet = (*data, "--sheet", tmp_path / "sheet.png")
    outcome = brainage(*words, "a dark picture", *sheet[:2], "--images", tmp_path, *sheet[4:], "--top", 3)
    assert "holds an index of 8 images already, which is searched" in outcome.output
    assert "3 of the 3 images found are not in the folder of --images" in outcome.output
    again = brainage(*words, "a dark picture", "--top", 3)
    assert again.exit_code == 0, again.output
    assert again.output.count(".png") == 3
    captions = brainage(*words, "--image", root / "images" / "9.png")
    assert captions.exit_code == 0, captions.output
    assert "night" in captions.output


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ([], 2, "give either a text or --image"),
        (["  "], 2, "must hold a word"),
        (["x", "--sheet", "s.png"], 2, "needs a text and --images"),
        (["--image", "recipe.yaml"], 1, "recipe.yaml: found no readable image"),
    ],
)
def test_wrong_questions(trained, tmp_path, more, code, said):
    root, data = trained
    more = [str(root / word) if word == "recipe.yaml" else word for word in more]
    index = tmp_path / "index"
    extra = () if "--sheet" in more else (*data, "--split", "train")
    words = ("retrieval", "search", root / "run" / "model.safetensors", "--index", index, *more, *extra)
    outcome = brainage(*words)
    assert outcome.exit_code == code, outcome.output
    assert said in outcome.output


def test_an_index_of_another_model_is_refused(trained, tmp_path):
    root, data = trained
    words = ("retrieval", "search", root / "run" / "model.safetensors", "--index", tmp_path, "dark")
    assert brainage(*words, *data, "--split", "train").exit_code == 0
    names = json.loads((tmp_path / "names.json").read_text("utf-8"))
    (tmp_path / "names.json").write_text(json.dumps({**names, "fingerprint": "other"}))
    outcome = brainage(*words)
    assert outcome.exit_code == 1
    assert "the index of another model" in outcome.output
    (tmp_path / "names.json").write_text("{}")
    assert "a damaged index" in brainage(*words).output


def test_captions_without_splits_need_a_validation_file(trained, tmp_path):
    root, _ = trained
    (tmp_path / "c.csv").write_text("0.png,dark\n1.png,bright\n")
    words = ("--captions", tmp_path / "c.csv", "--images", root / "images", "-o", tmp_path / "run")
    outcome = brainage("retrieval", "train", root / "recipe.yaml", *words)
    assert outcome.exit_code == 1
    assert "give the captions of other images by --validation" in outcome.output


def test_zero_shot(trained, tmp_path):
    root, _ = trained
    for index, name in enumerate(("dark", "bright")):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (200 * index,) * 3).save(tmp_path / "val" / name / "a.png")
    model = root / "run" / "model.safetensors"
    outcome = brainage("retrieval", "zero-shot", model, "--data", tmp_path, "--prompt", "a {} picture")
    assert outcome.exit_code == 0, outcome.output
    assert "2 images: top-1" in outcome.output
    (tmp_path / "names.txt").write_text("night\n")
    outcome = brainage("retrieval", "zero-shot", model, "--data", tmp_path, "--names", tmp_path / "names.txt")
    assert outcome.exit_code == 2
    assert "must name the 2 classes" in outcome.output


def test_zero_shot_on_shards_leaves_out_what_is_no_image_and_asks_for_names(trained, tmp_path):
    root, _ = trained
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    files = {"a.png": picture.getvalue(), "b.png": picture.getvalue(), "c.png": b"text"}
    files |= {"a.cls": b"0", "b.cls": b"1", "c.cls": b"1"}
    with tarfile.open(tmp_path / "val-0.tar", "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    outcome = brainage("retrieval", "zero-shot", root / "run" / "model.safetensors", "--data", tmp_path)
    assert outcome.exit_code == 0, outcome.output
    assert "2 images, 1 files left out: top-1 50.0%" in outcome.output
    assert "numbers for names, which no caption tells of: give --names" in outcome.output


def test_routing_of_both_towers(trained, tmp_path):
    root, _ = trained
    model = root / "run" / "model.safetensors"
    words = ("routing-stats", model, "--data", root / "images", "--captions", root / "captions.json")
    outcome = brainage(*words, "-o", tmp_path)
    assert outcome.exit_code == 0, outcome.output
    content = json.loads((tmp_path / "routing_stats.json").read_text("utf-8"))
    image, text = content["layers"]
    assert (content["router"], image["block"], text["block"]) == ("ermoe, vmoe", "image 0", "text 0")
    assert (content["inputs"]["number"], len(image["load"]), len(text["load"])) == (4, 4, 3)
    # Two experts a token: four patches an image, and at most six words, never padding.
    assert sum(image["load"]) == 4 * 4 * 2
    assert 0 < sum(text["load"]) <= 4 * 6 * 2
    assert text["below_threshold"] == 0
    assert text["overlap"] is None
    (point,) = content["stability"]
    assert len(point["to_previous"]) == 2
    assert (tmp_path / "routing_stats.png").exists()
    outcome = brainage("routing-stats", model, "--data", root / "images", "-o", tmp_path)
    assert outcome.exit_code == 1
    assert "give --data, the folder of images, and --captions" in outcome.output
