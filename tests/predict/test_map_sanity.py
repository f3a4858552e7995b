"""Sanity checks of maps: what they find where the answer is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from brainage.anatomy.grid import MODEL_GRID
from brainage.data.datasets import AgedScan
from brainage.models.weights import TrainedModel
from brainage.predict.map_sanity import (
    agreement,
    label_shuffle,
    maps_of,
    model_agreement,
    parameter_randomisation,
    rescan_stability,
)
from brainage.predict.specialisation import information, specialisation


@pytest.fixture(scope="module")
def scans() -> list[AgedScan]:
    rng = np.random.default_rng(0)
    return [
        AgedScan(
            f"sub-{i}", "", 20.0 + 8 * i, torch.from_numpy(rng.uniform(0, 1.2, (1, *MODEL_GRID.shape))).half()
        )
        for i in range(6)
    ]


def test_agreement_is_about_what_differs_between_scans() -> None:
    rng = np.random.default_rng(0)
    shared, one, other = rng.normal(0, 100, 50), rng.normal(size=(8, 50)), rng.normal(size=(8, 50))
    assert agreement(shared + one, -shared + one) == 1
    assert abs(agreement(shared + one, shared + other)) < 0.3


def test_random_parameters_leave_nothing_of_the_map(tiny_model: TrainedModel, scans: list[AgedScan]) -> None:
    before = maps_of(tiny_model.model, scans)[1]
    rows = parameter_randomisation(tiny_model, scans)
    assert [row["random_down_to"] for row in rows] == ["head", "block 0", "stem"]
    assert all(abs(row["tokens"]) < 0.1 for row in rows)
    np.testing.assert_array_equal(
        maps_of(tiny_model.model, scans)[1], before
    )  # the model itself is as it was


def test_a_rescan_moves_maps_as_far_as_it_moves_the_scan(
    tiny_model: TrainedModel, scans: list[AgedScan]
) -> None:
    rows = rescan_stability(tiny_model, scans)
    assert len(rows) == 3
    assert all(0 < row["age_change"] < 20 for row in rows)
    again = rescan_stability(tiny_model, scans)
    assert rows == again


def test_a_model_agrees_with_itself_and_other_regions_cannot_be_compared(
    tiny_model: TrainedModel, scans: list[AgedScan]
) -> None:
    same = model_agreement(tiny_model, tiny_model, scans)
    assert same == {"age_difference": 0, "regions": 1, "tokens": 1}
    renamed = dataclasses.replace(tiny_model, region_names=tiny_model.region_names[::-1])
    assert model_agreement(tiny_model, renamed, scans) is None


def test_heads_fit_the_ages_they_are_given(tiny_model: TrainedModel, scans: list[AgedScan]) -> None:
    found = label_shuffle(tiny_model, scans[:4], scans[4:])
    assert (found["learned_from"], found["held_out"]) == (4, 2)
    assert found["true_with_shuffled"] != found["true_with_trained"]


def test_information_by_hand() -> None:
    one_to_one = np.eye(2)
    assert information(one_to_one, one_to_one) == pytest.approx(1)  # bit: two equally frequent pairs
    assert information(np.full((2, 2), 0.5), one_to_one) == pytest.approx(0)
    # p(e, r) = [[3/8, 1/8], [1/8, 3/8]]: 3/4 log2(3/2) + 1/4 log2(1/2).
    leaning = np.array([[0.75, 0.25], [0.25, 0.75]])
    assert information(leaning, one_to_one) == pytest.approx(0.75 * np.log2(1.5) - 0.25)


def test_specialisation_compares_with_the_prior_and_leaves_the_model(
    tiny_model: TrainedModel, scans: list[AgedScan]
) -> None:
    found = specialisation(tiny_model, scans[:2])
    assert found["chance"] < found["information"] <= found["experts"]
    assert found["without_prior"] < found["information"]  # untrained experts know nothing of regions
    assert found["prior_alone"] > found["chance"]
    assert tiny_model.model.recipe.prior == "hard"
