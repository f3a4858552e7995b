"""How a trained model routes a set of inputs: the figures of ``brainage routing-stats``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from brainage.data.images import load_images
from brainage.errors import InputError
from brainage.models.classifier_weights import FORMAT as CLASSIFIER
from brainage.models.classifier_weights import load_classifier
from brainage.models.model_file import format_name
from brainage.models.weights import TrainedModel, load_trained
from brainage.nn import RoutingRecord, VisionTransformer, expert_load, subspace_overlap
from brainage.nn.routing_stats import load_statistics
from brainage.preprocess.outputs import find_preprocessed, read_preprocessed
from brainage.preprocess.simulated import simulated_volumes
from brainage.train.routing import read_snapshots, stability_curve

SIMULATED_AGES = (25.0, 45.0, 65.0, 85.0)
BATCH = 8


@dataclass(frozen=True, eq=False)
class Probe:
    """Inputs of a model and how they were routed.

    Attributes:
        routing: for every batch, one record for each mixture.
        num_inputs: scans or images.
        source: what they are, in words.
        simulated: whether they are.
    """

    routing: list[list[RoutingRecord]]
    num_inputs: int
    source: str
    simulated: bool


def routing_content(
    checkpoint: str | PathLike[str], data: Path | None = None, limit: int = 32
) -> dict[str, Any]:
    """Load, overlap and stability of a checkpoint's mixtures, ready for JSON.

    Args:
        checkpoint: ``model.safetensors`` of ``brainage train`` or ``brainage vision train``.
        data: of a brain-age model, a folder that ``brainage preprocess`` wrote, without it simulated scans;
            of a classifier, a folder with ``val/<class>/``.
        limit: inputs at most: the first scans, or about as many images from all classes.

    Returns:
        ``model``, ``fingerprint``, ``router``, ``experts`` (names);
        ``inputs``: ``number``, ``source`` and whether they are ``simulated``;
        ``layers``: for each mixture ``block``, ``load``, ``share`` by expert, the statistics of
        :func:`~brainage.nn.routing_stats.load_statistics`, ``below_threshold``, and, where the experts have
        bases of their own, ``overlap`` (E, E) with ``overlap_mean`` off the diagonal and ``overlap_chance``;
        ``stability``: see :func:`~brainage.train.routing.stability_curve`, empty without snapshots.

    Raises:
        CheckpointError: no checkpoint, or a damaged one or snapshot.
        InputError: no inputs, or no mixture in the model.
    """
    path = Path(checkpoint)
    trained: Any
    if format_name(path) == CLASSIFIER.name:
        trained = load_classifier(path)
        probe = _probe_images(trained, path, data, limit)
        names: Sequence[str] = ()
        title = str(trained.recipe.name)
    else:
        trained = load_trained(path)
        probe = _probe_scans(trained, data, limit)
        names, title = trained.model.routed_names, str(trained.facts["name"])
    mixtures = _mixtures(trained.model)
    if not mixtures:
        raise InputError(path, "a model without mixtures", "one with moe_blocks", "train it with some")
    batches = zip(*probe.routing, strict=True)
    router = trained.recipe.model.router
    layers = [
        _layer(block, layer, records, router)
        for (block, layer), records in zip(mixtures, batches, strict=True)
    ]
    experts = list(names) or [str(expert) for expert in range(1, len(layers[0]["load"]) + 1)]
    return {
        "model": title,
        "fingerprint": trained.facts.get("fingerprint"),
        "router": router,
        "experts": experts,
        "inputs": {"number": probe.num_inputs, "source": probe.source, "simulated": probe.simulated},
        "layers": layers,
        "stability": stability_curve(_snapshots(path)),
    }


def _snapshots(path: Path) -> list[tuple[int, list[Tensor]]]:
    """Those of the fit that made the model: beside it, or in the ``final`` fit of a brain-age training."""
    folders = (path.parent / "final" / "routing", path.parent / "routing")
    return next((read_snapshots(folder) for folder in folders if folder.is_dir()), [])


@torch.no_grad()
def _probe_scans(trained: TrainedModel, data: Path | None, limit: int) -> Probe:
    if data is None:
        volumes = [torch.from_numpy(volume) for volume in simulated_volumes(SIMULATED_AGES)]
        source = f"simulated brains of {', '.join(f'{age:g}' for age in SIMULATED_AGES)} years"
    else:
        paths = find_preprocessed(data)[:limit]
        if not paths:
            remedy = "run brainage preprocess first, or leave --data out for simulated scans"
            raise InputError(data, "no preprocessed scan", "what brainage preprocess wrote", remedy)
        volumes = [torch.from_numpy(read_preprocessed(path).volume()) for path in paths]
        source = f"preprocessed scans of {data.resolve().name}"
    routing = [
        trained.model(torch.stack(volumes[start : start + BATCH]).float()[:, None]).routing
        for start in range(0, len(volumes), BATCH)
    ]
    return Probe(routing, len(volumes), source, simulated=data is None)


@torch.no_grad()
def _probe_images(trained: Any, path: Path, data: Path | None, limit: int) -> Probe:
    if data is None:
        remedy = "give --data, the folder with val/<class>/"
        raise InputError(path, "an image classifier", "images to route", remedy)
    per_class = max(1, limit // len(trained.classes))
    images = load_images(data, "val", trained.recipe.model.image_size, trained.classes, per_class)
    chunks = [part.tolist() for part in torch.arange(len(images)).split(BATCH)]
    routing = [trained.model(pixels).routing for pixels, _ in images.source.batches(chunks)]
    return Probe(routing, len(images), f"validation images of {data.resolve().name}", simulated=False)


def _mixtures(model: nn.Module) -> list[tuple[int, nn.Module]]:
    """Index and feed-forward layer of every block that returns a routing record."""
    encoders = [part for part in model.modules() if isinstance(part, VisionTransformer)]
    return [
        (index, cast(nn.Module, block.feed_forward))
        for encoder in encoders
        for index, block in enumerate(encoder.blocks)
        if hasattr(block.feed_forward, "uses_context")
    ]


@torch.no_grad()
def _layer(block: int, layer: nn.Module, records: Sequence[RoutingRecord], router: str) -> dict[str, Any]:
    # Soft MoE chooses no expert: the weight that tokens give it stands for its load.
    loads = [r.gates_BNE.flatten(0, 1).sum(0) if router == "soft" else expert_load(r) for r in records]
    load_E = torch.stack(loads).sum(0).double()
    below = torch.cat([record.fallback_BN.flatten() for record in records]).double().mean()
    content: dict[str, Any] = {
        "block": block,
        "load": load_E.tolist(),
        "share": (load_E / load_E.sum()).tolist(),
        **load_statistics(load_E),
        "below_threshold": float(below),
        "overlap": None,
    }
    if hasattr(layer, "routing_bases"):
        bases_EDR = cast(Any, layer).routing_bases()
        experts, dim, rank = bases_EDR.shape
        overlap_EE = subspace_overlap(bases_EDR)
        off_diagonal = overlap_EE[~torch.eye(experts, dtype=torch.bool)]
        content["overlap"] = overlap_EE.tolist()
        content["overlap_mean"] = float(off_diagonal.mean()) if experts > 1 else 0.0
        content["overlap_chance"] = rank / dim
    return content
