"""The figure of the routing, whatever a model has of layers, bases and snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from brainage.report.routing import save_routing_figure


def content(layers: int, experts: int, overlap: bool, epochs: int) -> dict[str, Any]:
    share = [1 / (experts - 1)] * (experts - 1) + [0.0]
    layer = {"share": share, "gini": 0.1, "overlap": None}
    if overlap:
        rows = [[float(i == j) for j in range(experts)] for i in range(experts)]
        layer |= {"overlap": rows, "overlap_mean": 0.0, "overlap_chance": 0.06}
    same = [{"same_first": 0.8, "jaccard": 0.7}] * layers
    return {
        "model": "test",
        "router": "ermoe",
        "experts": [f"basal_ganglia_{i}" for i in range(experts)],
        "inputs": {"number": 4, "source": "simulated brains", "simulated": True},
        "layers": [layer | {"block": block} for block in range(layers)],
        "stability": [
            {"epoch": epoch, "previous": epoch - 1, "to_previous": same, "previous_to_last": same}
            for epoch in range(2, epochs + 1)
        ],
    }


@pytest.mark.parametrize(
    ("layers", "experts", "overlap", "epochs"), [(2, 12, True, 4), (1, 2, False, 0), (6, 64, True, 1)]
)
def test_every_shape_is_drawn(layers: int, experts: int, overlap: bool, epochs: int, tmp_path: Path) -> None:
    save_routing_figure(tmp_path / "routing.png", content(layers, experts, overlap, epochs))
    with Image.open(tmp_path / "routing.png") as image:
        width, height = image.size
    assert 500 < width < 4000 + 600 * layers
    assert 300 < height < 3000
