"""The training loop."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from monai.data import DataLoader, Dataset
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from brainage.config import TrainRecipe
from brainage.data.augment import augmentation
from brainage.data.datasets import AgedScan
from brainage.models.brain_age import BrainAgeModel
from brainage.nn import no_weight_decay_parameters, routing_statistics
from brainage.train.checkpoints import load_training_state, save_training_state
from brainage.train.probe import centre_contributions, linear_probe
from brainage.train.schedule import warmup_cosine

logger = logging.getLogger("brainage")

Progress = Callable[[Sequence[int], str], Iterable[int]]

LOG_FIELDS = ("epoch", "loss", "train_mae", "validation_mae", "lr", "gini", "fallback", "seconds")


def quiet(epochs: Sequence[int], title: str) -> Iterable[int]:
    """The :data:`Progress` that shows nothing."""
    return epochs


def fit(
    model: BrainAgeModel,
    scans: Sequence[AgedScan],
    recipe: TrainRecipe,
    out: Path,
    validation: Sequence[AgedScan] = (),
    progress: Progress = quiet,
) -> BrainAgeModel:
    """Fine-tune from a linear probe, and return the model with exponentially averaged weights.

    The run can be killed at any time: called again with the same arguments it goes on after the last
    checkpoint in ``out``, drawing the same batches and augmentations as an uninterrupted run.

    Args:
        model: freshly made.
        scans: to learn from.
        recipe: of the optimisation.
        out: folder for ``log.csv``, TensorBoard events and ``training_state.pt``.
        validation: scans to report the error of, never to learn or choose from.
        progress: shows how far the epochs are.

    Raises:
        CheckpointError: ``out`` holds a training state that does not fit the model or is damaged.
    """
    out.mkdir(parents=True, exist_ok=True)
    fabric = Fabric(accelerator="auto", devices=1, precision=recipe.precision)
    fabric.to_device(model)
    adamw = torch.optim.AdamW(_parameter_groups(model, recipe.weight_decay), lr=recipe.lr, betas=(0.9, 0.98))
    optimizer = fabric.setup_optimizers(adamw)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
    mean_model = cast(BrainAgeModel, averaged.module)
    steps = max(1, len(scans) // recipe.batch_size)
    schedule = LambdaLR(adamw, warmup_cosine(steps * recipe.epochs, recipe.warmup))
    state = out / "training_state.pt"
    parts = {"model": model, "averaged": averaged, "optimizer": adamw, "schedule": schedule}
    if state.exists():
        first = load_training_state(state, parts)
        logger.info("Resuming %s after epoch %d of %d", out.name, first, recipe.epochs)
    else:
        first = 0
        linear_probe(model, scans, recipe.batch_size, fabric)
        mean_model.load_state_dict(model.state_dict())

    with SummaryWriter(str(out)) as board, _csv_log(out / "log.csv", first) as log:
        for epoch in progress(range(first, recipe.epochs), f"Training {out.name}"):
            start = time.perf_counter()
            row: dict[str, Any] = {"epoch": epoch + 1, "lr": schedule.get_last_lr()[0]}
            row |= _train_epoch(fabric, model, averaged, optimizer, schedule, scans, recipe, epoch)
            last = epoch + 1 == recipe.epochs
            if validation and (last or (epoch + 1) % recipe.checkpoint_every == 0):
                predicted = predict_ages(mean_model, validation, recipe.batch_size, fabric)
                truth = torch.tensor([scan.age for scan in validation])
                row["validation_mae"] = float((predicted - truth).abs().mean())
            row["seconds"] = time.perf_counter() - start
            log.writerow({key: _short(value) for key, value in row.items()})
            for name, value in row.items():
                board.add_scalar(name, value, epoch + 1)
            logger.info("%s epoch %d/%d: %s", out.name, epoch + 1, recipe.epochs, _sentence(row))
            if last or (epoch + 1) % recipe.checkpoint_every == 0:
                save_training_state(state, parts, epoch + 1)
    centre_contributions(mean_model, scans, recipe.batch_size, fabric)
    return mean_model


@torch.no_grad()
def predict_ages(
    model: BrainAgeModel, scans: Sequence[AgedScan], batch_size: int, fabric: Fabric | None = None
) -> Tensor:
    """Predicted ages (N,) of scans, years, with the model in evaluation mode."""
    fabric = fabric or Fabric(accelerator="auto", devices=1)
    was_training = model.training
    model.eval()
    ages = []
    for start in range(0, len(scans), batch_size):
        volumes = torch.stack([scan.volume.float() for scan in scans[start : start + batch_size]])
        with fabric.autocast():
            ages.append(model(fabric.to_device(volumes)).age_B.cpu())
    model.train(was_training)
    return torch.cat(ages)


def _train_epoch(
    fabric: Fabric,
    model: BrainAgeModel,
    averaged: AveragedModel,
    optimizer: Any,
    schedule: LambdaLR,
    scans: Sequence[AgedScan],
    recipe: TrainRecipe,
    epoch: int,
) -> dict[str, float]:
    model.train()
    scale = model.scale
    losses, gaps = [], []
    for volume_B1XYZ, age_B in _batches(fabric, scans, recipe, epoch):
        with fabric.autocast():
            output = model(volume_B1XYZ)
        loss = F.smooth_l1_loss(output.age_B / scale, age_B / scale, beta=0.25)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        averaged.update_parameters(model)
        losses.append(loss.detach())
        gaps.append((output.age_B.detach() - age_B).abs().mean())
    row = {"loss": float(torch.stack(losses).mean()), "train_mae": float(torch.stack(gaps).mean())}
    if output.routing:
        # Of the epoch's last batch, averaged over the layers.
        figures = [routing_statistics(record.detach()) for record in output.routing]
        row["gini"] = sum(figure["gini"] for figure in figures) / len(figures)
        row["fallback"] = sum(figure["below_threshold"] for figure in figures) / len(figures)
    return row


def _batches(
    fabric: Fabric, scans: Sequence[AgedScan], recipe: TrainRecipe, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented volumes (B, 1, X, Y, Z) and ages (B,) of one epoch; the same for the same seed and epoch."""
    seed = recipe.seed * 100_003 + epoch
    # Also of stochastic depth in the model.
    torch.manual_seed(seed)
    items = [{"volume": scan.volume, "age": scan.age} for scan in scans]
    transform = augmentation()
    transform.set_random_state(seed)
    loader = DataLoader(
        Dataset(items, transform),
        batch_size=recipe.batch_size,
        shuffle=True,
        # A lone scan left over would weigh as much as a whole batch.
        drop_last=len(items) > recipe.batch_size,
        num_workers=recipe.workers,
        generator=torch.Generator().manual_seed(seed),
    )
    for batch in loader:
        volume = convert_to_tensor(batch["volume"], track_meta=False)
        yield fabric.to_device(volume), fabric.to_device(batch["age"].float())


def _parameter_groups(model: BrainAgeModel, weight_decay: float) -> list[dict[str, Any]]:
    exempt = no_weight_decay_parameters(model)
    named = list(model.named_parameters())
    return [
        {"params": [p for name, p in named if name not in exempt], "weight_decay": weight_decay},
        {"params": [p for name, p in named if name in exempt], "weight_decay": 0.0},
    ]


@contextmanager
def _csv_log(path: Path, finished: int) -> Iterator[csv.DictWriter]:
    """A CSV log that keeps the rows of the ``finished`` epochs and drops those of epochs to be repeated."""
    rows = []
    if finished and path.exists():
        with path.open(newline="") as old:
            rows = [row for row in csv.DictReader(old) if int(row["epoch"]) <= finished]
    with path.open("w", newline="", buffering=1) as file:
        writer = csv.DictWriter(file, LOG_FIELDS)
        writer.writeheader()
        writer.writerows(rows)
        yield writer


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _sentence(row: dict[str, Any]) -> str:
    parts = [f"loss {row['loss']:.4f}", f"training MAE {row['train_mae']:.2f} y"]
    if "validation_mae" in row:
        parts.append(f"validation MAE {row['validation_mae']:.2f} y")
    if "gini" in row:
        parts.append(f"load Gini {row['gini']:.2f}, fallback {row['fallback']:.1%}")
    return ", ".join([*parts, f"{row['seconds']:.0f} s"])
