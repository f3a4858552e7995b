"""``brainage faithfulness`` from a model to its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from brainage.anatomy.grid import MODEL_GRID
from brainage.cli.main import app
from brainage.models.weights import TrainedModel, save_trained
from brainage.predict import simulated_aging

pytest.importorskip("captum", reason="captum is not installed")


def test_the_command_measures_and_tells(
    tiny_model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr(simulated_aging, "simulate_scan", lambda *settings: None)
    monkeypatch.setattr(
        simulated_aging, "volume_of", lambda scan: rng.uniform(0, 1.2, MODEL_GRID.shape).astype(np.float32)
    )
    for name in ("one", "two"):
        save_trained(tmp_path / name / "model.safetensors", tiny_model)
    out = tmp_path / "out"
    command = ["faithfulness", "-o", str(out), "--model", str(tmp_path / "one" / "model.safetensors")]
    command += ["--other", str(tmp_path / "two" / "model.safetensors"), "--people", "4", "--restored", "0"]
    result = CliRunner().invoke(app, [*command, "--scans", "4"])
    assert result.exit_code == 0, result.output
    content = json.loads((out / "faithfulness.json").read_text("utf-8"))
    assert content["truth"]["people"] == 4
    (cohort,) = content["cohorts"]
    assert cohort["simulated"]
    assert cohort["others"]["two"]["regions"] == 1
    assert cohort["agreement"]["contribution"] == 1
    assert "ROC AUC" in result.stdout
    assert "Taking regions away" in result.stdout
    assert (out / "faithfulness.png").read_bytes().startswith(b"\x89PNG")
