"""One network of a comparison: made, fitted, and measured on the fold that it did not see."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from brainage.benchmark_config import BenchmarkRecipe, Contestant
from brainage.config import BrainAgeRecipe, BrainAgeTrainRecipe
from brainage.models.brain_age import BrainAgeModel, TokenLayout
from brainage.models.sfcn import Sfcn
from brainage.nn.routing_stats import expert_load, load_statistics
from brainage.train.benchmark_data import BenchmarkData
from brainage.train.benchmark_tasks import Copies, SfcnTask, TransformerTask, stack
from brainage.train.cross_validate import new_model
from brainage.train.fit import Progress, fit
from brainage.train.layout import lay_out

REPEATS = 5  # of a timed prediction


def network_outcome(
    name: str,
    seed: int,
    recipe: BenchmarkRecipe,
    data: BenchmarkData,
    train: np.ndarray,
    held: np.ndarray,
    working: Path,
    progress: Progress,
    fabric: Fabric,
) -> dict[str, Any]:
    """Predictions for the scans in the rows ``held``, and what the network costs.

    Returns:
        ``predicted`` (years), ``parameters``, ``flops`` (of one scan more in a batch), ``seconds_per_scan``
        (a batch of one), ``gini`` and ``gini_by_layer`` of the load on the held-out scans (None where nothing
        is routed), ``epochs``.
    """
    contestant = recipe.contestants[name]
    settings = recipe.train_of(contestant, seed)
    to_learn, held_out = data.scans(train), data.scans(held)
    ages = data.table["age"].to_numpy()[train].tolist()
    copies = Copies(data.copies(seed), train, ages, settings)
    task: TransformerTask | SfcnTask
    if contestant.kind == "sfcn":
        torch.manual_seed(seed)
        task = SfcnTask(Sfcn(contestant.sfcn), to_learn, settings, copies)
    else:
        brain_age, layout = layout_of(recipe, contestant, seed)
        fresh = new_model(brain_age, layout, to_learn)
        task = TransformerTask(fresh, to_learn, settings, copies, recipe.last_probe)
    model = fit(task, settings, working, progress, fabric).eval()
    predicted, loads = [], []
    with torch.no_grad():
        for start in range(0, len(held_out), settings.batch_size):
            with fabric.autocast():
                ages_B, routing = _predict(
                    model, stack(held_out[start : start + settings.batch_size], fabric)
                )
            predicted += ages_B.tolist()
            loads.append([expert_load(record) for record in routing])
        layers = [load_statistics(torch.stack(layer).sum(0))["gini"] for layer in zip(*loads, strict=True)]
        one = stack(held_out[:1], fabric)
        seconds = _seconds(model, one, fabric)
        flops = count_flops(model, one)
    routes = contestant.kind == "transformer" and recipe.model_of(contestant).router not in ("soft", "dense")
    return {
        "predicted": predicted,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops": flops,
        "seconds_per_scan": seconds,
        "gini": float(np.mean(layers)) if routes else None,
        "gini_by_layer": layers if routes else None,
        "epochs": settings.epochs,
    }


def layout_of(
    recipe: BenchmarkRecipe, contestant: Contestant, seed: int
) -> tuple[BrainAgeRecipe, TokenLayout]:
    """The recipe of a transformer as the training knows it, and its tokens on the pooled grid."""
    model, train = recipe.model_of(contestant), recipe.train_of(contestant, seed)
    training = BrainAgeTrainRecipe(**train.model_dump(), probe_copies=0)
    brain_age = BrainAgeRecipe(atlas=recipe.atlas, model=model, train=training)
    # The atlas lies on the model grid, where a patch is as many times larger as voxels were pooled.
    on_model_grid = model.model_copy(update={"patch": model.patch * recipe.pool})
    layout, _ = lay_out(brain_age.model_copy(update={"model": on_model_grid}))
    if contestant.regions == "random":
        layout = shuffled_regions(layout, model.free_experts)
    return brain_age, layout


def shuffled_regions(layout: TokenLayout, free_experts: int) -> TokenLayout:
    """The same layout with each token's regional priors given to another token, the same in every run."""
    order = torch.randperm(len(layout.index_N), generator=torch.Generator().manual_seed(0))
    prior_NE = layout.prior_NE.clone()
    regional = prior_NE.shape[1] - free_experts
    prior_NE[:, :regional] = layout.prior_NE[order, :regional]
    return TokenLayout(layout.index_N, prior_NE, layout.expert_names, layout.grid)


def count_flops(model: nn.Module, volume_11XYZ: Tensor) -> int:
    """Floating-point operations of one scan more in a batch, so without what is computed once for all.

    Products and convolutions only, as ``torch.utils.flop_counter`` counts them: two for a multiply-add.
    """
    totals = []
    for scans in (1, 2):
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            model(volume_11XYZ.expand(scans, -1, -1, -1, -1))
        totals.append(counter.get_total_flops())
    return totals[1] - totals[0]


def step_seconds(recipe: BenchmarkRecipe, contestant: Contestant, shape: tuple[int, int, int]) -> float:
    """Duration of one training step on random volumes, for an estimate of what runs will take."""
    seed = recipe.seeds[0]
    if contestant.kind == "sfcn":
        model: nn.Module = Sfcn(contestant.sfcn)
    else:
        brain_age, layout = layout_of(recipe, contestant, seed)
        model = BrainAgeModel(brain_age.model, layout, 50.0, 20.0)
    volumes = torch.rand(recipe.train.batch_size, 1, *shape)
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        _predict(model, volumes)[0].sum().backward()
        durations.append(time.perf_counter() - start)
    return min(durations)


def _predict(model: nn.Module, volumes: Tensor) -> tuple[Tensor, list[Any]]:
    output = model(volumes)
    if isinstance(model, Sfcn):
        return model.ages(output), []
    return output.age_B, output.routing


def _seconds(model: nn.Module, volume_11XYZ: Tensor, fabric: Fabric) -> float:
    durations = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        with fabric.autocast():
            model(volume_11XYZ)
        durations.append(time.perf_counter() - start)
    return float(np.median(durations))
