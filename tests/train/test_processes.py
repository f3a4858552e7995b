"""Two processes train as one, and a process that is killed goes on where it was."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

import pytest
import torch

from brainage.config import TrainRecipe
from brainage.train.fit import fit

Run = Callable[..., CompletedProcess[str]]


def state(out: Path) -> dict:
    return torch.load(out / "training_state.pt", weights_only=True)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_as_one(
    strategy: str,
    toy: ModuleType,
    run_toy: Run,
    tmp_path: Path,
    assert_same_training: Callable[[Path, Path], None],
) -> None:
    shared = {"epochs": 1, "accumulate": 2}
    done = run_toy(tmp_path / "two", devices=2, strategy=strategy, **shared)
    assert done.returncode == 0, done.stderr
    recipe = TrainRecipe.model_validate(toy.RECIPE.model_dump() | shared)
    fit(toy.ToyTask(recipe), recipe, tmp_path / "one")
    assert_same_training(tmp_path / "one", tmp_path / "two")
    weights = torch.load(tmp_path / "two" / "weights.pt", weights_only=True)
    torch.testing.assert_close(weights, dict(state(tmp_path / "two")["averaged"]), atol=0, rtol=0)
    # Written by one process: a header and a row, with the loss over both.
    two, one = ((tmp_path / name / "log.csv").read_text("utf-8").splitlines() for name in ("two", "one"))
    assert len(two) == len(one) == 2
    for name in ("loss", "gap", "gini", "validation_gap"):
        column = two[0].split(",").index(name)
        assert float(two[1].split(",")[column]) == pytest.approx(float(one[1].split(",")[column]), rel=1e-3)


def test_a_killed_process_resumes_within_the_epoch(run_toy: Run, tmp_path: Path) -> None:
    settings = {"checkpoint_steps": 2, "drop_path": 0.4}
    # After 5 of 3 steps an epoch: the checkpoint is that of epoch 2, step 2.
    killed = run_toy(tmp_path / "killed", 5, **settings)
    assert killed.returncode == -signal.SIGKILL
    before = state(tmp_path / "killed")
    assert (before["epoch"], before["step"]) == (1, 2)
    done = run_toy(tmp_path / "killed", **settings)
    assert done.returncode == 0, done.stderr
    # A program too: this process may have other threads, and sums in another order.
    straight = run_toy(tmp_path / "straight", **settings)
    assert straight.returncode == 0, straight.stderr
    weights, expected = (
        torch.load(tmp_path / name / "weights.pt", weights_only=True) for name in ("killed", "straight")
    )
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, atol=0, rtol=0, msg=name)
