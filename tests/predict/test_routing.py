"""The figures of ``brainage routing-stats``, from a checkpoint to the picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from brainage.anatomy.grid import MODEL_GRID
from brainage.cli.main import app
from brainage.errors import CheckpointError, InputError
from brainage.models.weights import TrainedModel, save_trained
from brainage.nn import expert_load
from brainage.predict import routing as module
from brainage.predict.routing import routing_content
from brainage.train.routing import save_snapshot


@pytest.fixture
def volumes(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Instead of simulated brains, which take seconds each."""
    made = [np.random.default_rng(seed).random(MODEL_GRID.shape, np.float32) for seed in (0, 1)]
    monkeypatch.setattr(module, "simulated_volumes", lambda ages: made)
    return made


@pytest.fixture
def checkpoint(tiny_model: TrainedModel, tmp_path: Path) -> Path:
    save_trained(tmp_path / "run" / "model.safetensors", tiny_model)
    return tmp_path / "run" / "model.safetensors"


def test_figures_are_those_of_the_model(
    checkpoint: Path, volumes: list[np.ndarray], tiny_model: TrainedModel
) -> None:
    content = routing_content(checkpoint)
    (layer,) = content["layers"]
    with torch.no_grad():
        (record,) = tiny_model.model(torch.from_numpy(np.stack(volumes))[:, None]).routing
    assert sum(layer["load"]) == expert_load(record).sum()
    # The file holds half precision, so a few tokens may choose otherwise.
    assert np.abs(np.array(layer["load"]) - expert_load(record).numpy()).sum() < 0.02 * sum(layer["load"])
    assert layer["share"] == pytest.approx([load / sum(layer["load"]) for load in layer["load"]])
    assert content["experts"] == list(tiny_model.model.routed_names)
    # Blocks of one basis do not overlap at all; independent ones would by chance, 2 / 32.
    np.testing.assert_allclose(layer["overlap"], np.eye(len(content["experts"])), atol=1e-5)
    assert layer["overlap_mean"] == pytest.approx(0, abs=1e-5)
    assert layer["overlap_chance"] == 2 / 32
    assert content["inputs"]["simulated"]
    assert "simulated" in content["inputs"]["source"]
    assert content["stability"] == []


def test_stability_comes_from_the_final_fit(
    checkpoint: Path, volumes: list[np.ndarray], tiny_model: TrainedModel
) -> None:
    with torch.no_grad():
        routing = tiny_model.model(torch.from_numpy(volumes[0])[None, None]).routing
    for epoch in (5, 10):
        save_snapshot(checkpoint.parent / "final", epoch, routing)
    (point,) = routing_content(checkpoint)["stability"]
    assert point["epoch"] == 10
    assert point["to_previous"] == [{"same_first": 1.0, "jaccard": 1.0}]


def test_the_command_writes_and_tells(checkpoint: Path, volumes: list[np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["routing-stats", str(checkpoint), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "simulated brains" in " ".join(result.stdout.split())
    assert "no routing snapshots" in " ".join(result.stdout.split())
    content = json.loads((out / "routing_stats.json").read_text("utf-8"))
    layers = pd.read_csv(out / "routing_stats.tsv", sep="\t")
    assert layers["gini"].tolist() == pytest.approx([layer["gini"] for layer in content["layers"]], rel=1e-5)
    load = pd.read_csv(out / "routing_load.tsv", sep="\t")
    assert load["expert"].tolist() == content["experts"]
    assert load["share"].sum() == pytest.approx(1)
    assert (out / "routing_stats.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_routed_is_said(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no preprocessed scan"):
        routing_content(checkpoint, tmp_path)
    damaged = tmp_path / "model.safetensors"
    shutil.copy(checkpoint, damaged)
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        routing_content(damaged)
