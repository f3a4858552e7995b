"""The loop learns, resumes exactly, and refuses a state that is not its own."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from brainage.anatomy.grid import MODEL_GRID
from brainage.config import BrainAgeRecipe
from brainage.data.datasets import AgedScan
from brainage.errors import CheckpointError
from brainage.models.brain_age import BrainAgeModel, TokenLayout
from brainage.train import fit as module
from brainage.train.cross_validate import new_model
from brainage.train.fit import fit, predict_ages
from brainage.train.schedule import warmup_cosine

LAYOUT = TokenLayout(
    torch.tensor([500, 505, 600, 605]),
    torch.tensor([[0.5, 0.0, 1.0], [0.5, 0.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.5, 1.0]]),
    ("front", "back", "free 1"),
    (10, 12, 10),
)


def recipe(**train: object) -> BrainAgeRecipe:
    model = {
        "dim": 16,
        "depth": 2,
        "num_heads": 2,
        "hidden_dim": 16,
        "moe_blocks": [1],
        "rank": 4,
        "drop_path": 0.3,
    }
    train = {
        "epochs": 4,
        "batch_size": 4,
        "lr": 3e-3,
        "precision": "32-true",
        "workers": 0,
        "ema": 0.5,
    } | train
    return BrainAgeRecipe.model_validate({"model": model | {"free_experts": 1}, "train": train})


@pytest.fixture(scope="module")
def scans() -> list[AgedScan]:
    """Brains that darken with age: 1 at 20 years, 0.5 at 80."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for number, age in enumerate(torch.linspace(20, 80, 8).tolist()):
        noise = 0.02 * torch.randn(1, *MODEL_GRID.shape, generator=generator)
        made.append(AgedScan(f"sub-{number}", "", age, (1 - (age - 20) / 120 + noise).half()))
    return made


def test_it_learns(scans: list[AgedScan], tmp_path: Path) -> None:
    settings = recipe(epochs=30)
    model = fit(new_model(settings, LAYOUT, scans), scans, settings.train, tmp_path, scans)
    truth = torch.tensor([scan.age for scan in scans])
    # The mean predictor is 17 years off.
    assert (predict_ages(model, scans, 4) - truth).abs().mean() < 8
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 31))
    assert all(float(row["train_mae"]) < 17 for row in rows)
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_a_killed_run_ends_as_an_uninterrupted_one(
    scans: list[AgedScan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(checkpoint_every=2)
    straight = fit(new_model(settings, LAYOUT, scans), scans, settings.train, tmp_path / "straight")

    whole = module._train_epoch

    def killed(*args: object) -> dict[str, float]:
        if args[-1] == 3:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(module, "_train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(new_model(settings, LAYOUT, scans), scans, settings.train, tmp_path / "killed")
    monkeypatch.undo()
    resumed = fit(new_model(settings, LAYOUT, scans), scans, settings.train, tmp_path / "killed")
    for name, value in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=0, rtol=0, msg=name)
    with (tmp_path / "killed" / "log.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["damaged", "foreign"])
def test_another_training_state_is_refused(kind: str, scans: list[AgedScan], tmp_path: Path) -> None:
    settings = recipe(epochs=1)
    if kind == "damaged":
        (tmp_path / "training_state.pt").write_bytes(b"PK\x03\x04 cut off")
    else:
        other = BrainAgeRecipe.model_validate(
            settings.model_dump() | {"model": settings.model.model_dump() | {"dim": 32}}
        )
        fit(new_model(other, LAYOUT, scans), scans, settings.train, tmp_path)
    with pytest.raises(CheckpointError, match=r"training_state\.pt"):
        fit(new_model(settings, LAYOUT, scans), scans, settings.train, tmp_path)


def test_every_parameter_is_in_one_group_and_bases_are_not_decayed() -> None:
    model = BrainAgeModel(recipe().model, LAYOUT, 50, 20)
    decayed, exempt = module._parameter_groups(model, 0.05)
    sizes = [sum(p.numel() for p in group["params"]) for group in (decayed, exempt)]
    assert sum(sizes) == sum(p.numel() for p in model.parameters())
    assert exempt["weight_decay"] == 0
    basis = model.encoder.blocks[1].feed_forward.experts.reading
    assert all(any(p is q for q in exempt["params"]) for p in basis.parameters())


def test_schedule_rises_then_falls_to_zero() -> None:
    factor = warmup_cosine(100, 0.1)
    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == 1
    assert factor(10) == 1
    assert factor(55) == pytest.approx(0.5)
    assert factor(100) == pytest.approx(0)
