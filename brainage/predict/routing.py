"""How a trained model routes a set of inputs: the figures of ``brainage routing-stats``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from brainage.data.captioned_images import load_captioned
from brainage.data.captions import has_splits
from brainage.data.images import load_images
from brainage.data.tokenizer import encode
from brainage.errors import InputError
from brainage.models.classifier_weights import FORMAT as CLASSIFIER
from brainage.models.classifier_weights import load_classifier
from brainage.models.dual_encoder import of_words
from brainage.models.dual_encoder_weights import FORMAT as RETRIEVER
from brainage.models.dual_encoder_weights import TrainedRetriever, load_retriever
from brainage.models.model_file import format_name
from brainage.models.weights import TrainedModel, load_trained
from brainage.nn import RoutingRecord, VisionTransformer, expert_load, subspace_overlap
from brainage.nn.routing_stats import load_statistics
from brainage.preprocess.outputs import find_preprocessed, read_preprocessed
from brainage.preprocess.simulated import simulated_volumes
from brainage.train.routing import read_snapshots, stability_curve

SIMULATED_AGES = (25.0, 45.0, 65.0, 85.0)
BATCH = 8


class Mixture(NamedTuple):
    """A mixture layer: its block (of a dual encoder with the tower, ``image 2``), itself and its router."""

    block: int | str
    layer: nn.Module
    router: str


@dataclass(frozen=True, eq=False)
class Probe:
    """Inputs of a model and how they were routed.

    Attributes:
        routing: for every batch, one record for each mixture.
        mixtures: name, layer and router of each, in the same order.
        num_inputs: scans or images.
        source: what they are, in words.
        simulated: whether they are.
    """

    routing: list[list[RoutingRecord]]
    mixtures: list[Mixture]
    num_inputs: int
    source: str
    simulated: bool


def routing_content(
    checkpoint: str | PathLike[str],
    data: Path | None = None,
    limit: int = 32,
    captions: Path | None = None,
) -> dict[str, Any]:
    """Load, overlap and stability of a checkpoint's mixtures, ready for JSON.

    Args:
        checkpoint: ``model.safetensors`` of ``brainage train``, ``vision train`` or ``retrieval train``.
        data: of a brain-age model, a folder that ``brainage preprocess`` wrote, without it simulated scans;
            of a classifier, a folder with ``val/<class>/``; of a dual encoder, the folder of images.
        limit: inputs at most: the first scans or pairs, or about as many images from all classes.
        captions: of a dual encoder, the caption file; its split ``val`` where it has splits.

    Returns:
        ``model``, ``fingerprint``, ``router``, ``experts`` (names);
        ``inputs``: ``number``, ``source`` and whether they are ``simulated``;
        ``layers``: for each mixture ``block`` (of a dual encoder with the tower: ``image 2``), ``load``,
        ``share`` by expert, the statistics of :func:`~brainage.nn.routing_stats.load_statistics`,
        ``below_threshold``, and, where the experts have bases of their own, ``overlap`` (E, E) with
        ``overlap_mean`` off the diagonal and ``overlap_chance``;
        ``stability``: see :func:`~brainage.train.routing.stability_curve`, empty without snapshots.

    Raises:
        CheckpointError: no checkpoint, or a damaged one or snapshot.
        InputError: no inputs, or no mixture in the model.
    """
    path = Path(checkpoint)
    trained: Any
    kind = format_name(path)
    names: Sequence[str] = ()
    if kind == CLASSIFIER.name:
        trained = load_classifier(path)
        probe = _probe_images(trained, path, data, limit)
        title = str(trained.recipe.name)
    elif kind == RETRIEVER.name:
        trained = load_retriever(path)
        probe = _probe_pairs(trained, path, data, captions, limit)
        title = str(trained.recipe.name)
    else:
        trained = load_trained(path)
        probe = _probe_scans(trained, data, limit)
        names, title = trained.model.routed_names, str(trained.facts["name"])
    if not probe.mixtures:
        raise InputError(path, "a model without mixtures", "one with moe_blocks", "train it with some")
    layers = [
        _layer(mixture, records)
        for mixture, records in zip(probe.mixtures, zip(*probe.routing, strict=True), strict=True)
    ]
    most = max(len(layer["load"]) for layer in layers)
    return {
        "model": title,
        "fingerprint": trained.facts.get("fingerprint"),
        "router": ", ".join(dict.fromkeys(mixture.router for mixture in probe.mixtures)),
        "experts": list(names) or [str(expert) for expert in range(1, most + 1)],
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
    mixtures = _mixtures(trained.model, trained.recipe.model.router)
    return Probe(routing, mixtures, len(volumes), source, simulated=data is None)


@torch.no_grad()
def _probe_images(trained: Any, path: Path, data: Path | None, limit: int) -> Probe:
    if data is None:
        remedy = "give --data, the folder with val/<class>/"
        raise InputError(path, "an image classifier", "images to route", remedy)
    per_class = max(1, limit // len(trained.classes))
    images = load_images(data, "val", trained.recipe.model.image_size, trained.classes, per_class)
    chunks = [part.tolist() for part in torch.arange(len(images)).split(BATCH)]
    routing = [trained.model(pixels).routing for pixels, _ in images.source.batches(chunks)]
    mixtures = _mixtures(trained.model, trained.recipe.model.router)
    source = f"validation images of {data.resolve().name}"
    return Probe(routing, mixtures, len(images), source, simulated=False)


@torch.no_grad()
def _probe_pairs(
    trained: TrainedRetriever, path: Path, data: Path | None, captions: Path | None, limit: int
) -> Probe:
    """Images, each with its first caption."""
    if data is None or captions is None:
        remedy = "give --data, the folder of images, and --captions"
        raise InputError(path, "a dual encoder", "images with captions to route", remedy)
    recipe, model = trained.recipe, trained.model
    split = "val" if has_splits(captions) else None
    images = load_captioned(captions, data, split, recipe.image.image_size, limit=limit)
    ids_IN, _ = encode(trained.tokenizer, [texts[0] for texts in images.texts], recipe.text.length)
    chunks = [part.tolist() for part in torch.arange(len(images)).split(BATCH)]
    routing = []
    for pixels_BCHW, index_B in images.pixels.batches(chunks):
        ids_BN = ids_IN[index_B]
        output = model(pixels_BCHW, ids_BN)
        routing.append(output.image_routing + of_words(output.text_routing, ids_BN))
    mixtures = [
        mixture._replace(block=f"{tower} {mixture.block}")
        for tower, part, router in (
            ("image", model.image, recipe.image.router),
            ("text", model.text, recipe.text.router),
        )
        for mixture in _mixtures(part, router)
    ]
    source = f"pairs of image and caption from {data.resolve().name}"
    return Probe(routing, mixtures, len(images), source, simulated=False)


def _mixtures(model: nn.Module, router: str) -> list[Mixture]:
    """Every block whose feed-forward layer returns a routing record, by index."""
    encoders = [part for part in model.modules() if isinstance(part, VisionTransformer)]
    return [
        Mixture(index, cast(nn.Module, block.feed_forward), router)
        for encoder in encoders
        for index, block in enumerate(encoder.blocks)
        if hasattr(block.feed_forward, "uses_context")
    ]


@torch.no_grad()
def _layer(mixture: Mixture, records: Sequence[RoutingRecord]) -> dict[str, Any]:
    block, layer, router = mixture
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
