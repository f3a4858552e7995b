"""What a training keeps of its routing: two figures an epoch, and snapshots on a fixed set of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from brainage.errors import CheckpointError
from brainage.files import replacing
from brainage.nn import RoutingRecord, expert_load
from brainage.nn.routing_stats import load_statistics, routing_stability
from brainage.train.log import Row


def mean_routing(records: Sequence[RoutingRecord], fabric: Fabric) -> Row:
    """Load Gini and share of tokens below the threshold of a batch over all processes, mean of the layers."""
    if not records:
        return {}
    gini, fallback = 0.0, 0.0
    for record in records:
        load = cast(Tensor, fabric.all_reduce(expert_load(record).double(), reduce_op="sum"))
        gini += load_statistics(load)["gini"] / len(records)
        below = record.fallback_BN.double().mean()
        fallback += float(cast(Tensor, fabric.all_reduce(below, reduce_op="mean"))) / len(records)
    return {"gini": gini, "fallback": fallback}


def save_snapshot(out: Path, epoch: int, records: Sequence[RoutingRecord]) -> None:
    """Write the chosen experts of every layer to ``routing/epoch-0001.safetensors``, -1 for unused slots."""
    layers = {
        f"layer_{index}": record.experts_BNK.masked_fill(~record.used_BNK, -1).to("cpu", torch.int16)
        for index, record in enumerate(records)
    }
    experts = {"experts": " ".join(str(record.num_experts) for record in records)}
    with replacing(out / "routing" / f"epoch-{epoch:04d}.safetensors") as partial:
        partial.write_bytes(save({name: layer.contiguous() for name, layer in layers.items()}, experts))


def read_snapshots(folder: Path) -> list[tuple[int, list[Tensor]]]:
    """Epochs and the chosen experts (B, N, K) of every layer, in order, of the snapshots in a folder.

    Raises:
        CheckpointError: a file is damaged, or of another probe set or model than the first.
    """
    expected, remedy = "routing that brainage train saved", "delete this file"
    snapshots: list[tuple[int, list[Tensor]]] = []
    for path in sorted(folder.glob("epoch-*.safetensors")):
        try:
            content = load_file(path)
            layers = [content[f"layer_{index}"] for index in range(len(content))]
            epoch = int(path.stem.removeprefix("epoch-"))
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise CheckpointError(path, "no snapshot, or a damaged one", expected, remedy) from error
        if snapshots and [layer.shape for layer in layers] != [layer.shape for layer in snapshots[0][1]]:
            raise CheckpointError(path, "a snapshot of other inputs or another model", expected, remedy)
        snapshots.append((epoch, layers))
    return snapshots


def stability_curve(snapshots: Sequence[tuple[int, list[Tensor]]]) -> list[dict[str, Any]]:
    """Every two neighbouring saved epochs compared, and the earlier of them with the last one.

    Returns:
        ``epoch``, ``previous`` (epoch), and for each layer in order ``to_previous`` (the two) and
        ``previous_to_last``, as :func:`~brainage.nn.routing_stats.routing_stability`.
    """
    curve = []
    for (previous, before), (epoch, now) in pairwise(snapshots):
        last = snapshots[-1][1]
        curve.append(
            {
                "epoch": epoch,
                "previous": previous,
                "to_previous": [routing_stability(a, b) for a, b in zip(before, now, strict=True)],
                "previous_to_last": [routing_stability(a, b) for a, b in zip(before, last, strict=True)],
            }
        )
    return curve
