"""A trained model survives its file, and nothing else passes for one."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from brainage.config import BrainAgeRecipe
from brainage.errors import CheckpointError
from brainage.models.brain_age import BrainAgeModel, TokenLayout
from brainage.models.regional_age import RegionalAges
from brainage.models.weights import TrainedModel, load_trained, save_trained

RECIPE = BrainAgeRecipe.model_validate(
    {
        "model": {
            "patch": 4,
            "dim": 16,
            "depth": 2,
            "num_heads": 2,
            "hidden_dim": 16,
            "moe_blocks": [1],
            "rank": 4,
            "free_experts": 1,
        }
    }
)


@pytest.fixture
def trained() -> TrainedModel:
    torch.manual_seed(0)
    prior = torch.tensor([[0.5, 1.0], [0.0, 1.0], [1.0, 1.0]])
    layout = TokenLayout(torch.tensor([0, 1, 5]), prior, ("front", "free 1"), (2, 3, 2))
    model = BrainAgeModel(RECIPE.model, layout, 45.3, 21.7).eval()
    torch.nn.init.normal_(model.head.weight_ND)
    return TrainedModel(
        model=model,
        recipe=RECIPE,
        region_names=("a L", "a R"),
        region_groups=("front", "front"),
        region_hemispheres=("L", "R"),
        region_share_NR=torch.rand(3, 2),
        residuals_C=torch.randn(7),
        typical_mean_NF=torch.rand(3, 80),
        typical_std_NF=torch.rand(3, 80) + 0.1,
        facts={"name": "tiny", "age_range": [18.0, 96.0]},
    )


def test_round_trip(trained: TrainedModel, tmp_path: Path) -> None:
    save_trained(tmp_path / "model.safetensors", trained)
    again = load_trained(tmp_path / "model.safetensors")
    volume = torch.rand(2, 1, 8, 12, 8)
    # Weights are stored in half precision: eleven significant bits.
    torch.testing.assert_close(again.model(volume).age_B, trained.model(volume).age_B, atol=0.2, rtol=0)
    assert not again.model.training
    assert again.recipe == RECIPE
    assert again.model.expert_names == ("front", "free 1")
    assert again.facts == trained.facts
    assert again.region_names == trained.region_names
    torch.testing.assert_close(again.residuals_C, trained.residuals_C)
    assert float(again.model.scale) == float(trained.model.scale)


def test_others_may_read_a_model_as_any_other_file(trained: TrainedModel, tmp_path: Path) -> None:
    (tmp_path / "any.txt").write_text("as the user's umask has it")
    save_trained(tmp_path / "model.safetensors", trained)
    mode, usual = ((tmp_path / name).stat().st_mode for name in ("model.safetensors", "any.txt"))
    assert mode == usual


def test_regional_ages_travel_with_the_model_and_may_be_missing(
    trained: TrainedModel, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    regional = RegionalAges(
        rng.normal(0, 20, (2, 10)), rng.normal(50, 5, 2), rng.uniform(20, 90, 6), rng.normal(50, 9, (6, 2))
    )
    save_trained(tmp_path / "with.safetensors", dataclasses.replace(trained, regional=regional))
    again = load_trained(tmp_path / "with.safetensors").regional
    assert again is not None
    for field in dataclasses.fields(regional):
        there = getattr(regional, field.name)
        np.testing.assert_allclose(getattr(again, field.name), there, rtol=1e-6)
    save_trained(tmp_path / "without.safetensors", trained)
    assert load_trained(tmp_path / "without.safetensors").regional is None


def test_a_second_round_trip_changes_nothing_that_matters(trained: TrainedModel, tmp_path: Path) -> None:
    save_trained(tmp_path / "one.safetensors", trained)
    one = load_trained(tmp_path / "one.safetensors")
    save_trained(tmp_path / "two.safetensors", one)
    two = load_trained(tmp_path / "two.safetensors")
    volume = torch.rand(2, 1, 8, 12, 8)
    # Not exactly: orthonormal starts are made orthonormal again on loading.
    torch.testing.assert_close(two.model(volume).age_B, one.model(volume).age_B, atol=2e-2, rtol=0)


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("a weight file ran code",))


@pytest.mark.parametrize("kind", ["missing", "text", "pickle", "truncated", "foreign", "header", "tensor"])
def test_what_is_no_checkpoint_is_refused_in_one_sentence(
    kind: str, trained: TrainedModel, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    if kind == "text":
        path.write_text("not a model")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    elif kind != "missing":
        save_trained(path, trained)
        content = path.read_bytes()
        if kind == "truncated":
            path.write_bytes(content[: len(content) // 2])
        elif kind == "header":
            save_file(load_file(path), path, {"format": "brainage-1", "brainage": json.dumps({})})
        else:
            tensors = load_file(path)
            tensors["model.head.weight_ND"] = torch.zeros(1, 3)
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                metadata = json.loads(file.read(length))["__metadata__"]
            save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: found .*; expected .*; ") as caught:
        load_trained(path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
