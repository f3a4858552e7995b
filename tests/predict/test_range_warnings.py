"""Scans that the model should not be trusted with."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brainage.anatomy.grid import MODEL_GRID
from brainage.models.weights import TrainedModel
from brainage.predict.predictor import predict_scan
from brainage.predict.range_warnings import range_warnings


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.3, 1.1, MODEL_GRID.shape).astype(np.float32)


@pytest.fixture
def knows_it(tiny_model: TrainedModel, volume: np.ndarray) -> TrainedModel:
    """A model for which ``volume`` is the average training scan, and a part 3 deviations away is unusual."""
    histograms_NF = tiny_model.model.histograms(torch.from_numpy(volume)[None, None])[0]
    return dataclasses.replace(
        tiny_model,
        typical_mean_NF=histograms_NF,
        typical_std_NF=torch.full_like(histograms_NF, 0.05),
        facts={**tiny_model.facts, "age_range": [-1e9, 1e9], "unusual_part_limit": 3.0},
    )


def messages(trained: TrainedModel, volume: np.ndarray) -> list[str]:
    scan = SimpleNamespace(fingerprint=trained.facts["preprocessing_fingerprint"])
    return range_warnings(trained, predict_scan(trained, volume), scan)


@pytest.mark.parametrize("side", ["L", "R"])
def test_the_part_that_differs_is_named_with_its_side(
    knows_it: TrainedModel, volume: np.ndarray, side: str
) -> None:
    share_NR = knows_it.region_share_NR.numpy()
    names = [i for i, name in enumerate(knows_it.region_hemispheres) if name == side]
    token, region = max(
        ((int(share_NR[:, i].argmax()), i) for i in names), key=lambda pair: share_NR[pair[0], pair[1]]
    )
    assert messages(knows_it, volume) == []
    size = knows_it.recipe.model.patch
    corner = size * np.array(np.unravel_index(int(knows_it.model.index_N[token]), knows_it.model.grid))
    spoiled = volume.copy()
    spoiled[tuple(slice(start, start + size) for start in corner)] = 0
    (message,) = messages(knows_it, spoiled)
    assert message.startswith(f"a part of the scan ({knows_it.region_names[region]}) is unlike")
    # In the half of the grid, whose x runs from left to right, that the name says.
    assert (corner[0] + size / 2 < MODEL_GRID.shape[0] / 2) == (side == "L")
    assert whole_scan_hardly_differs(knows_it, spoiled)


def whole_scan_hardly_differs(trained: TrainedModel, spoiled: np.ndarray) -> bool:
    """The distance of the whole scan stays small where one patch in hundreds differs."""
    prediction = predict_scan(trained, spoiled)
    return prediction.unusual < 0.1 * prediction.unusual_N.max()


def test_a_model_that_does_not_know_its_parts_warns_of_none(
    knows_it: TrainedModel, volume: np.ndarray
) -> None:
    facts = {name: value for name, value in knows_it.facts.items() if name != "unusual_part_limit"}
    older = dataclasses.replace(knows_it, facts=facts)
    spoiled = volume.copy()
    spoiled[30:50, 40:60, 30:50] = 0
    assert messages(knows_it, spoiled)
    assert messages(older, spoiled) == []
