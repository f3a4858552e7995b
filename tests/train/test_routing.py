"""Snapshots of the routing, and how much of it stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric

from brainage.errors import CheckpointError
from brainage.nn import RoutingRecord
from brainage.nn.routing_stats import routing_stability
from brainage.train.routing import mean_routing, read_snapshots, save_snapshot, stability_curve


def record(experts: list[list[int]], used: list[list[bool]] | None = None, num_experts: int = 4):
    chosen = torch.tensor([experts])
    gates = torch.ones(chosen.shape) if used is None else torch.tensor([used]).float()
    shape = (*chosen.shape[:2], num_experts)
    eligible = torch.ones(shape, dtype=torch.bool)
    return RoutingRecord(torch.zeros(shape), chosen, gates, eligible, gates[..., 0] == 0)


def test_stability_by_hand() -> None:
    # Token by token: both experts stay; they change places; one of two stays; none stays; none and none.
    before = torch.tensor([[[0, 1], [0, 1], [0, 1], [0, 1], [-1, -1]]])
    after = torch.tensor([[[0, 1], [1, 0], [0, 2], [2, 3], [-1, -1]]])
    figures = routing_stability(before, after)
    assert figures["same_first"] == pytest.approx(3 / 5)  # the 1st, 3rd and 5th
    assert figures["jaccard"] == pytest.approx((1 + 1 + 1 / 3 + 0 + 1) / 5)


def test_an_expert_that_falls_away_counts_against_stability() -> None:
    figures = routing_stability(torch.tensor([[[2, 1]]]), torch.tensor([[[2, -1]]]))
    assert figures == {"same_first": 1.0, "jaccard": 0.5}


def test_snapshots_come_back_in_order_without_unused_slots(tmp_path: Path) -> None:
    second = record([[3, 0], [1, 2]], [[True, False], [True, True]])
    save_snapshot(tmp_path, 10, [second, record([[0, 1], [2, 3]])])
    save_snapshot(tmp_path, 5, [record([[3, 1], [2, 1]]), record([[0, 1], [3, 2]])])
    snapshots = read_snapshots(tmp_path / "routing")
    assert [epoch for epoch, _ in snapshots] == [5, 10]
    assert snapshots[1][1][0].tolist() == [[[3, -1], [1, 2]]]
    (point,) = stability_curve(snapshots)
    assert (point["epoch"], point["previous"]) == (10, 5)
    # First layer: {3, 1} to {3}, and {2, 1} to {1, 2}; second: the same, and the order changes.
    assert point["to_previous"] == [
        {"same_first": 0.5, "jaccard": 0.75},
        {"same_first": 0.5, "jaccard": 1.0},
    ]
    assert point["previous_to_last"] == point["to_previous"]


def test_each_earlier_epoch_is_compared_with_the_last() -> None:
    chosen = [torch.tensor([[[expert]]]) for expert in (0, 1, 0)]
    curve = stability_curve([(epoch, [layer]) for epoch, layer in enumerate(chosen)])
    assert [point["to_previous"][0]["same_first"] for point in curve] == [0.0, 0.0]
    assert [point["previous_to_last"][0]["same_first"] for point in curve] == [1.0, 0.0]


def test_one_snapshot_makes_no_curve(tmp_path: Path) -> None:
    save_snapshot(tmp_path, 1, [record([[0, 1]])])
    assert stability_curve(read_snapshots(tmp_path / "routing")) == []
    assert read_snapshots(tmp_path / "nothing") == []


@pytest.mark.parametrize("kind", ["damaged", "other inputs", "unnumbered"])
def test_what_is_no_snapshot_of_this_run_is_refused(tmp_path: Path, kind: str) -> None:
    save_snapshot(tmp_path, 1, [record([[0, 1]])])
    folder = tmp_path / "routing"
    if kind == "damaged":
        (folder / "epoch-0002.safetensors").write_bytes(b"cut off")
    elif kind == "unnumbered":
        (folder / "epoch-two.safetensors").write_bytes((folder / "epoch-0001.safetensors").read_bytes())
    else:
        save_snapshot(tmp_path, 2, [record([[0, 1], [1, 2]])])
    with pytest.raises(CheckpointError, match="epoch-"):
        read_snapshots(folder)


def test_figures_of_an_epoch_are_means_of_the_layers() -> None:
    even = record([[0, 1], [2, 3]])
    uneven = record([[0, 1], [0, 1]], [[True, True], [False, True]])
    figures = mean_routing([even, uneven], Fabric(accelerator="cpu", devices=1))
    # Loads 1 and 2 of experts 0 and 1: shares 1/3, 2/3, 0, 0, of which the Gini is 7/12.
    assert figures["gini"] == pytest.approx(7 / 12 / 2)
    assert figures["fallback"] == pytest.approx(1 / 4)
    assert mean_routing([], Fabric(accelerator="cpu", devices=1)) == {}
