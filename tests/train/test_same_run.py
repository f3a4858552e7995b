"""A training is not gone on with by other settings or data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric import Fabric

from brainage.config import BrainAgeRecipe
from brainage.errors import CheckpointError
from brainage.train.same_run import SETTINGS, claim, digest
from brainage.vision_config import VisionRecipe

FABRIC = Fabric(accelerator="cpu", devices=1)
DATA = {"images": 8, "classes": "ab"}


def recipe(**changed: Any) -> VisionRecipe:
    train = {"folds": 0, "batch_size": 12, **changed.pop("train", {})}
    return VisionRecipe.model_validate({"name": "one", "train": train, **changed})


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder with a training state."""
    (tmp_path / "fold-0").mkdir()
    (tmp_path / "fold-0" / "training_state.pt").touch()
    return tmp_path


def test_settings_that_no_training_came_of_are_replaced(tmp_path: Path) -> None:
    claim(tmp_path, recipe(), DATA, FABRIC)
    claim(tmp_path, recipe(train={"lr": 0.01}), {**DATA, "init": "0f"}, FABRIC)
    (tmp_path / "training_state.pt").touch()
    with pytest.raises(
        CheckpointError, match=r"found a training with data\.init = 0f; expected data\.init = None"
    ):
        claim(tmp_path, recipe(train={"lr": 0.01}), {**DATA, "init": None}, FABRIC)


def test_a_training_from_before_first_weights_were_kept_had_none(begun: Path) -> None:
    claim(begun, recipe(), DATA, FABRIC)
    claim(begun, recipe(), {**DATA, "init": None}, FABRIC)
    with pytest.raises(CheckpointError, match=r"data\.init = default; expected data\.init = 0f"):
        claim(begun, recipe(), {**DATA, "init": "0f"}, FABRIC)


def test_the_same_again_and_where_it_runs_may_change(begun: Path) -> None:
    claim(begun, recipe(), DATA, FABRIC)
    kept = (begun / SETTINGS).read_bytes()
    claim(begun, recipe(), DATA, FABRIC)
    places = {"devices": 3, "strategy": "ddp", "workers": 4, "checkpoint_every": 1, "accumulate": 2}
    claim(begun, recipe(name="another", train=places), DATA, FABRIC)
    assert (begun / SETTINGS).read_bytes() == kept


def test_a_recipe_without_a_section_is_one_with_its_defaults(begun: Path) -> None:
    claim(begun, VisionRecipe(), DATA, FABRIC)
    claim(begun, VisionRecipe.model_validate({"train": {"folds": 0, "devices": 2}}), DATA, FABRIC)


def test_a_setting_that_is_new_since_then_was_as_by_default(begun: Path) -> None:
    claim(begun, recipe(), DATA, FABRIC)
    kept = json.loads((begun / SETTINGS).read_text("utf-8"))
    del kept["model.stem"]
    (begun / SETTINGS).write_text(json.dumps(kept))
    claim(begun, recipe(), DATA, FABRIC)
    with pytest.raises(CheckpointError, match=r"expected model\.stem = conv"):
        claim(begun, recipe(model={"stem": "conv"}), DATA, FABRIC)


@pytest.mark.parametrize(
    ("changed", "data", "said"),
    [
        (
            {"train": {"lr": 0.01}},
            DATA,
            "found a training with train.lr = 0.0005; expected train.lr = 0.01;",
        ),
        ({"model": {"rank": 4}}, DATA, "model.rank = 16; expected model.rank = 4"),
        (
            {"model": {"router": "vmoe", "router_settings": {"noise_std": 2}}},
            DATA,
            "model.router = ermoe, model.router_settings.noise_std = default; expected",
        ),
        ({"augment": {"mixup": 0.2}}, DATA, "expected augment.mixup = 0.2"),
        ({}, {**DATA, "images": 9}, "data.images = 8; expected data.images = 9; train into another folder"),
    ],
)
def test_other_settings_or_data_are_named(
    begun: Path, changed: dict[str, Any], data: dict[str, Any], said: str
) -> None:
    claim(begun, recipe(), DATA, FABRIC)
    with pytest.raises(CheckpointError) as error:
        claim(begun, recipe(**changed), data, FABRIC)
    assert said in str(error.value)
    claim(begun, recipe(), DATA, FABRIC)


def test_many_differences_are_counted_and_words_are_free(begun: Path) -> None:
    first = BrainAgeRecipe.model_validate({"card": {"cohort": "one"}})
    claim(begun, first, {"cohort": "a"}, FABRIC)
    claim(begun, BrainAgeRecipe.model_validate({"card": {"cohort": "two"}}), {"cohort": "a"}, FABRIC)
    model = {"dim": 64, "depth": 2, "hidden_dim": 64, "moe_blocks": [1], "top_k": 1, "rank": 4}
    with pytest.raises(CheckpointError, match=r"and 3 more; expected data\.cohort = b, model\.depth = 2"):
        claim(begun, BrainAgeRecipe.model_validate({"model": model}), {"cohort": "b"}, FABRIC)


def test_a_damaged_file_is_said(begun: Path) -> None:
    (begun / SETTINGS).write_text(json.dumps([1, 2]))
    with pytest.raises(CheckpointError, match=r"settings\.json: found a damaged file"):
        claim(begun, recipe(), DATA, FABRIC)


def test_a_digest_tells_where_a_text_ends() -> None:
    assert digest(["ab", "c"]) != digest(["a", "bc"])
