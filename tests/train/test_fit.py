"""The loop resumes exactly, splits batches without changing the result, and refuses a state not its own."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from brainage.config import BrainAgeRecipe, TrainRecipe, parse_recipe
from brainage.errors import CheckpointError, ConfigError
from brainage.train.fit import fit
from brainage.train.parameter_groups import parameter_groups
from brainage.train.schedule import warmup_cosine


def changed(recipe: TrainRecipe, **settings: Any) -> TrainRecipe:
    return TrainRecipe.model_validate(recipe.model_dump() | settings)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, msg=name, **tolerance)


@pytest.fixture
def dropping(toy: ModuleType) -> TrainRecipe:
    """Stochastic depth draws from torch's generator, and two micro-batches make a step."""
    return changed(toy.RECIPE, accumulate=2, checkpoint_every=2)


@pytest.mark.parametrize(
    ("killed_at", "checkpoint_steps"), [(0, 0), (3, 1), (5, 2), (8, 0), (11, 2), (13, 0), (17, 1)]
)
def test_a_killed_run_ends_as_an_uninterrupted_one(
    toy: ModuleType, dropping: TrainRecipe, tmp_path: Path, killed_at: int, checkpoint_steps: int
) -> None:
    recipe = changed(dropping, checkpoint_steps=checkpoint_steps)
    straight = fit(toy.ToyTask(recipe, 0.4), recipe, tmp_path / "straight")

    class Dying(toy.ToyTask):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            if self.calls == killed_at:
                raise KeyboardInterrupt
            return super().loss(model, batch)

    with pytest.raises(KeyboardInterrupt):
        fit(Dying(recipe, 0.4), recipe, tmp_path / "killed")
    resumed = fit(toy.ToyTask(recipe, 0.4), recipe, tmp_path / "killed")
    assert_same(straight, resumed, atol=0, rtol=0)
    assert rows(tmp_path / "killed") == rows(tmp_path / "straight")
    assert [row["epoch"] for row in rows(tmp_path / "killed")] == ["1", "2", "3"]
    snapshots = sorted(path.name for path in (tmp_path / "killed" / "routing").iterdir())
    assert snapshots == ["epoch-0002.safetensors", "epoch-0003.safetensors"]


def test_a_finished_run_is_not_repeated(toy: ModuleType, tmp_path: Path) -> None:
    first = fit(toy.ToyTask(toy.RECIPE), toy.RECIPE, tmp_path)
    task = toy.ToyTask(toy.RECIPE)
    assert_same(first, fit(task, toy.RECIPE, tmp_path), atol=0, rtol=0)
    assert task.calls == 0


def test_micro_batches_change_memory_and_not_the_result(
    toy: ModuleType, tmp_path: Path, assert_same_training: Callable[[Path, Path], None]
) -> None:
    whole, split = toy.ToyTask(toy.RECIPE), toy.ToyTask(changed(toy.RECIPE, accumulate=4))
    fit(whole, whole.recipe, tmp_path / "whole")
    fit(split, split.recipe, tmp_path / "split")
    assert_same_training(tmp_path / "whole", tmp_path / "split")
    assert [len(batch) for batch in split.seen] == [2] * 36
    assert [list(chain(*split.seen[i : i + 4])) for i in range(0, 36, 4)] == whole.seen


def test_an_epoch_sees_no_item_twice_and_another_order_each_time(toy: ModuleType, tmp_path: Path) -> None:
    task = toy.ToyTask(toy.RECIPE)
    fit(task, toy.RECIPE, tmp_path)
    epochs = [list(chain(*task.seen[i : i + 3])) for i in (0, 3, 6)]
    assert all(len(set(epoch)) == 24 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("kind", ["damaged", "foreign", "older", "incomplete"])
def test_another_training_state_is_refused(toy: ModuleType, kind: str, tmp_path: Path) -> None:
    recipe, state = changed(toy.RECIPE, epochs=1), tmp_path / "training_state.pt"
    task = toy.ToyTask(recipe)
    if kind == "damaged":
        state.write_bytes(b"PK\x03\x04 cut off")
    elif kind == "older":
        torch.save({"epoch": 1, "model": {}}, state)
    else:
        fit(toy.ToyTask(recipe), recipe, tmp_path)
        if kind == "foreign":
            task.model.head = nn.Linear(8, 2)
        else:
            content = torch.load(state, weights_only=True)
            torch.save({name: value for name, value in content.items() if name != "schedule"}, state)
    with pytest.raises(CheckpointError, match=r"training_state\.pt: found .*; expected .*; .*\.$"):
        fit(task, recipe, tmp_path)


def test_a_state_that_would_run_code_is_refused(toy: ModuleType, tmp_path: Path) -> None:
    torch.save({"version": 2, "model": Path("/")}, tmp_path / "training_state.pt")
    with pytest.raises(CheckpointError, match="damaged"):
        fit(toy.ToyTask(toy.RECIPE), toy.RECIPE, tmp_path)


def test_gradients_that_are_no_numbers_stop_the_training(toy: ModuleType, tmp_path: Path) -> None:
    task = toy.ToyTask(toy.RECIPE)
    task.y_I[3] = torch.nan
    with pytest.raises(ConfigError, match=r"lr = 0\.003: made the gradients nan in epoch 1"):
        fit(task, toy.RECIPE, tmp_path)
    assert not (tmp_path / "training_state.pt").exists()


def test_a_task_that_gives_too_few_batches_is_an_error(toy: ModuleType, tmp_path: Path) -> None:
    task = toy.ToyTask(toy.RECIPE)
    task.steps_per_epoch += 1
    with pytest.raises(RuntimeError, match="fewer batches"):
        fit(task, toy.RECIPE, tmp_path)


def test_deterministic_mode_holds_during_the_training_only(toy: ModuleType, tmp_path: Path) -> None:
    recipe, modes = changed(toy.RECIPE, deterministic=True, epochs=1), []

    class Looking(toy.ToyTask):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            modes.append(torch.are_deterministic_algorithms_enabled())
            return super().loss(model, batch)

    fit(Looking(recipe), recipe, tmp_path)
    assert modes == [True] * 3
    assert not torch.are_deterministic_algorithms_enabled()


def test_figures_that_some_epochs_lack_leave_gaps(toy: ModuleType, tmp_path: Path) -> None:
    recipe = changed(toy.RECIPE, checkpoint_every=2)
    fit(toy.ToyTask(recipe), recipe, tmp_path)
    gaps = [row["validation_gap"] for row in rows(tmp_path)]
    assert gaps[0] == ""
    assert all(float(gap) > 0 for gap in gaps[1:])
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_a_batch_must_divide_among_devices_and_micro_batches() -> None:
    settings = {"train": {"batch_size": 12, "devices": 2, "num_nodes": 2, "accumulate": 2}}
    with pytest.raises(ConfigError, match=r"batch_size \(12\) must be a multiple .*\(8\)"):
        parse_recipe(settings, BrainAgeRecipe)


def test_every_parameter_is_in_one_group_and_bases_are_not_decayed(toy: ModuleType) -> None:
    model = toy.ToyModel(0.0)
    decayed, exempt = parameter_groups(model, TrainRecipe(weight_decay=0.05))
    sizes = [sum(p.numel() for p in group["params"]) for group in (decayed, exempt)]
    assert sum(sizes) == sum(p.numel() for p in model.parameters())
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.05, 0)
    basis = model.encoder.blocks[1].feed_forward.experts.reading
    assert all(any(p is q for q in exempt["params"]) for p in basis.parameters())


def test_schedule_rises_then_falls_to_zero() -> None:
    factor = warmup_cosine(100, 0.1)
    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == 1
    assert factor(10) == 1
    assert factor(55) == pytest.approx(0.5)
    assert factor(100) == pytest.approx(0)
