"""How a trained classifier does on a set of images."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric

from brainage.data.images import ImageSource
from brainage.models.classifier_weights import TrainedClassifier
from brainage.nn import RoutingRecord
from brainage.predict.image_experts import experts_by_class
from brainage.predict.image_routing import rows_by_block
from brainage.train.images import predict_logits, top_k_hits

PAIRS = 20


def evaluate_classifier(
    trained: TrainedClassifier, images: ImageSource, batch_size: int = 100, fabric: Fabric | None = None
) -> dict[str, Any]:
    """Accuracy, confusions, throughput and routing, ready for JSON.

    Returns:
        ``top1``, ``top5`` (fewer with fewer classes: ``k``), ``loss`` (cross-entropy), ``num_images``,
        ``skipped`` files, ``images_per_second``; ``classes``: for each its name, number of images, top-1 and
        the class that it is most often taken for (None where it never is), with the share; ``confusion``:
        for each class how many of its images were taken for each class; ``confused``: the pairs of classes
        that are taken for each other most often, up to 20, with the number and share of images;
        ``routing``: for each ``block`` with a mixture the statistics of its load, the share of tokens below
        the threshold, and ``by_class``, the share of each class's gates that each expert takes. The load of a
        Soft MoE counts the weight that tokens give to its experts, of which none is chosen. Images per
        second count decoding too, where images are decoded when they are needed.
    """
    routing: list[list[RoutingRecord]] = []
    start = time.perf_counter()
    logits_NC, label_N = predict_logits(trained.model, images, batch_size, fabric, routing)
    seconds = time.perf_counter() - start
    first_N = logits_NC.argmax(dim=-1)
    count = len(trained.classes)
    k = min(5, count)
    confusion_CC = torch.zeros(count, count).index_put_(
        (label_N, first_N), torch.ones(len(label_N)), accumulate=True
    )
    hits = {n: top_k_hits(logits_NC, label_N, n).double() for n in (1, k)}
    return {
        "num_images": len(label_N),
        "skipped": list(images.skipped),
        "top1": float(hits[1].mean()),
        "top5": float(hits[k].mean()),
        "k": k,
        "loss": float(F.cross_entropy(logits_NC, label_N)),
        "images_per_second": len(label_N) / seconds,
        "classes": _by_class(confusion_CC, trained.classes),
        "confusion": confusion_CC.long().tolist(),
        "confused": _most_confused(confusion_CC, trained.classes),
        "routing": _by_layer(routing, label_N, trained),
    }


def _by_layer(
    routing: list[list[RoutingRecord]], label_N: torch.Tensor, trained: TrainedClassifier
) -> list[dict[str, Any]]:
    rows = rows_by_block(routing, trained.recipe.model)
    tables = experts_by_class(routing, label_N, len(trained.classes)) if rows else []
    return [{**row, "by_class": table.round(4).tolist()} for row, table in zip(rows, tables, strict=True)]


def _by_class(confusion_CC: torch.Tensor, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    for index, name in enumerate(classes):
        counts = confusion_CC[index]
        total = float(counts.sum())
        wrong = counts.clone()
        wrong[index] = 0
        most = int(wrong.argmax())
        taken = classes[most] if wrong[most] else None
        rows.append(
            {
                "class": name,
                "num_images": int(total),
                "top1": float(counts[index]) / total if total else None,
                "taken_for": taken,
                "taken_share": float(wrong[most]) / total if total else None,
            }
        )
    return rows


def _most_confused(confusion_CC: torch.Tensor, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    wrong_CC = confusion_CC.clone().fill_diagonal_(0)
    largest = wrong_CC.flatten().sort(descending=True, stable=True)
    rows = []
    for count, place in zip(largest.values[:PAIRS].tolist(), largest.indices[:PAIRS].tolist(), strict=True):
        if not count:
            break
        true, taken = divmod(place, len(classes))
        share = count / float(confusion_CC[true].sum())
        rows.append(
            {"class": classes[true], "taken_for": classes[taken], "num_images": int(count), "share": share}
        )
    return rows
