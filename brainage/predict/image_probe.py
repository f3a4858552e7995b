"""What a frozen image encoder is good for: few-shot probes, and classes told by their names alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from brainage.data.images import ImageSource
from brainage.errors import ConfigError
from brainage.evaluate.few_shot import SHOTS, few_shot
from brainage.models.dual_encoder_weights import TrainedRetriever
from brainage.models.image_encoder import ImageEncoder
from brainage.train.retrieval import embed_captions


def features_of(
    encoder: ImageEncoder, images: ImageSource, batch_size: int = 100, fabric: Fabric | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features (N, D) float32 and labels (N,) of the readable images, in evaluation mode."""
    return _vectors_of(encoder, attrgetter("pooled_BD"), images, batch_size, fabric)


@torch.no_grad()
def _vectors_of(
    model: nn.Module,
    vectors: Callable[[Any], Tensor],
    images: ImageSource,
    batch_size: int,
    fabric: Fabric | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What ``vectors`` takes (N, D) from the model's output, and labels (N,), of the readable images."""
    fabric = fabric or Fabric(accelerator="auto", devices=1)
    chunks = [part.tolist() for part in torch.arange(len(images)).split(batch_size)]
    found, labels = [], []
    model.eval()
    for pixels_BCHW, index_B in images.source.batches(chunks):
        if len(index_B):
            found.append(vectors(model(fabric.to_device(pixels_BCHW))).float().cpu())
            labels.append(images.label_N[index_B])
    return torch.cat(found).numpy(), torch.cat(labels).numpy()


def probe_encoder(
    encoder: ImageEncoder,
    train: ImageSource,
    validation: ImageSource,
    shots: Sequence[int] = SHOTS,
    batch_size: int = 100,
) -> list[dict[str, Any]]:
    """Few-shot accuracies of frozen features, see :func:`~brainage.evaluate.few_shot.few_shot`.

    Raises:
        ConfigError: a class has fewer images than shots.
    """
    learned, held_out = (features_of(encoder, images, batch_size) for images in (train, validation))
    return few_shot(*learned, *held_out, shots=shots)


def zero_shot(
    trained: TrainedRetriever,
    images: ImageSource,
    names: Sequence[str],
    prompts: Sequence[str],
    batch_size: int = 100,
) -> dict[str, Any]:
    """Classes told by their names alone: the nearest of the classes' mean prompts.

    Args:
        trained: dual encoder.
        images: to classify.
        names: of the classes in words, in the order of ``images.classes``.
        prompts: sentences with ``{}`` in the place of the name; their vectors are averaged.
        batch_size: images at a time.

    Returns:
        ``top1``, ``num_images``, ``skipped`` files, and ``classes``, the accuracy of each (None for one
        without a readable image).

    Raises:
        ConfigError: a prompt has no place for the name, or the names are not those of the classes.
    """
    for prompt in prompts:
        if "{}" not in prompt:
            raise ConfigError("prompt", prompt, "must hold {} where the name of the class goes")
    if len(names) != len(images.classes):
        raise ConfigError("names", len(names), f"must name the {len(images.classes)} classes")
    image_ND, label_N = _vectors_of(trained.model, attrgetter("image_BD"), images, batch_size)
    sentences = [prompt.format(name) for name in names for prompt in prompts]
    vectors = embed_captions(trained.model, trained.tokenizer, sentences, batch_size)
    class_CD = vectors.reshape(len(names), len(prompts), -1).mean(axis=1)
    class_CD /= np.linalg.norm(class_CD, axis=1, keepdims=True)
    right_N = (image_ND @ class_CD.T).argmax(axis=1) == label_N
    rows = []
    for index, name in enumerate(names):
        own = right_N[label_N == index]
        rows.append({"class": name, "top1": float(own.mean()) if len(own) else None})
    skipped = list(images.skipped)
    return {"top1": float(right_N.mean()), "num_images": len(label_N), "skipped": skipped, "classes": rows}
