"""Brain age as a task of the loop: it learns, and its batches can be drawn again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric

from brainage.anatomy.grid import MODEL_GRID
from brainage.config import BrainAgeRecipe
from brainage.data.datasets import AgedScan
from brainage.models.brain_age import TokenLayout
from brainage.train.brain_age import BrainAgeTask, predict_ages
from brainage.train.cross_validate import new_model
from brainage.train.fit import fit

LAYOUT = TokenLayout(
    torch.tensor([500, 505, 600, 605]),
    torch.tensor([[0.5, 0.0, 1.0], [0.5, 0.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.5, 1.0]]),
    ("front", "back", "free 1"),
    (10, 12, 10),
)


def recipe(epochs: int, router: str = "ermoe", balancing: float = 0.0) -> BrainAgeRecipe:
    model = {
        "dim": 16,
        "depth": 2,
        "num_heads": 2,
        "hidden_dim": 16,
        "moe_blocks": [1],
        "rank": 4,
        "free_experts": 1,
        "drop_path": 0.3,
        "router": router,
        "balancing": balancing,
    }
    train = {
        "epochs": epochs,
        "batch_size": 4,
        "lr": 3e-3,
        "precision": "32-true",
        "workers": 0,
        "ema": 0.5,
    }
    return BrainAgeRecipe.model_validate({"model": model, "train": train})


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
    task = BrainAgeTask(new_model(settings, LAYOUT, scans), scans, settings.train, scans)
    model = fit(task, settings.train, tmp_path)
    truth = torch.tensor([scan.age for scan in scans])
    # The mean predictor is 17 years off.
    assert (predict_ages(model, scans, 4) - truth).abs().mean() < 8
    log = (tmp_path / "log.csv").read_text("utf-8").splitlines()
    assert {"loss", "train_mae", "validation_mae", "gini", "fallback"} <= set(log[0].split(","))
    assert len(log) == 31


def test_batches_are_the_same_for_the_same_epoch_and_cover_the_scans(scans: list[AgedScan]) -> None:
    settings = recipe(epochs=1)
    task = BrainAgeTask(new_model(settings, LAYOUT, scans), scans, settings.train)
    fabric = Fabric(accelerator="cpu", devices=1)
    first, again, other = [list(task.batches(fabric, epoch)) for epoch in (0, 0, 1)]
    for (volumes, ages), (same_volumes, same_ages) in zip(first, again, strict=True):
        assert torch.equal(volumes, same_volumes)
        assert torch.equal(ages, same_ages)
    assert sorted(torch.cat([ages for _, ages in first]).tolist()) == [scan.age for scan in scans]
    assert not torch.equal(first[0][0], other[0][0])


def test_the_balancing_loss_counts_in_training(scans: list[AgedScan]) -> None:
    losses = []
    for weight in (0.0, 0.5):
        settings = recipe(1, "vmoe", weight)
        task = BrainAgeTask(new_model(settings, LAYOUT, scans), scans, settings.train)
        batch = next(iter(task.batches(Fabric(accelerator="cpu", devices=1), 0)))
        torch.manual_seed(0)
        losses.append(task.loss(task.model, batch))
    assert "balancing" not in losses[0].figures
    added = float(losses[1].figures["balancing"])
    assert added > 0
    assert float(losses[1].loss - losses[0].loss) == pytest.approx(0.5 * added, rel=1e-4)
