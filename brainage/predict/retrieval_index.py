"""Embeddings of images and captions kept on disk, and what lies nearest to a text or an image in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from sklearn.neighbors import NearestNeighbors

from brainage.data.captioned_images import CaptionedImages
from brainage.data.image_decoding import UNREADABLE, decode
from brainage.data.squares import MemoryPixels
from brainage.errors import ConfigError, InputError
from brainage.files import replacing, write_json
from brainage.models.dual_encoder_weights import TrainedRetriever
from brainage.train.retrieval import embed_captions, embed_images

VECTORS, NAMES = "vectors.safetensors", "names.json"
REMEDY = "give --captions and --images to build it"


class Hit(NamedTuple):
    """A file or a caption, and the cosine of its vector with the query's."""

    name: str
    similarity: float


@dataclass(frozen=True, eq=False)
class Index:
    """What can be searched.

    Attributes:
        fingerprint: of the model that embedded it.
        files: of the images, below the folder that they were read from.
        captions: different ones, in the order of ``caption_CD``.
        image_ID, caption_CD: unit vectors, float32.
    """

    fingerprint: str
    files: tuple[str, ...]
    captions: tuple[str, ...]
    image_ID: np.ndarray
    caption_CD: np.ndarray

    def nearest_images(self, query_D: np.ndarray, count: int) -> list[Hit]:
        """The images nearest to a vector, nearest first."""
        return _nearest(self.image_ID, self.files, query_D, count)

    def nearest_captions(self, query_D: np.ndarray, count: int) -> list[Hit]:
        """The captions nearest to a vector, nearest first."""
        return _nearest(self.caption_CD, self.captions, query_D, count)


def build_index(trained: TrainedRetriever, images: CaptionedImages, batch_size: int = 100) -> Index:
    """Embed images and their captions, each different caption once."""
    captions = tuple(dict.fromkeys(images.captions))
    return Index(
        str(trained.facts["fingerprint"]),
        images.files,
        captions,
        embed_images(trained.model, images.pixels, batch_size),
        embed_captions(trained.model, trained.tokenizer, captions, batch_size),
    )


def save_index(folder: Path, index: Index) -> None:
    """Write vectors and names; the vectors last, so that a folder with them is whole."""
    names = {"fingerprint": index.fingerprint, "files": index.files, "captions": index.captions}
    write_json(folder / NAMES, names)
    with replacing(folder / VECTORS) as partial:
        partial.write_bytes(save({"images": index.image_ID, "captions": index.caption_CD}))


def load_index(folder: Path, fingerprint: str) -> Index:
    """Read what :func:`save_index` wrote. Reading it runs no code.

    Args:
        folder: of the index.
        fingerprint: of the model that queries will be embedded by.

    Raises:
        InputError: no index, a damaged one, or one of another model.
    """
    if not (folder / VECTORS).is_file():
        raise InputError(folder, "no index", "one that this command built", REMEDY)
    try:
        names = json.loads((folder / NAMES).read_text(encoding="utf-8"))
        vectors = load_file(folder / VECTORS)
        index = Index(
            names["fingerprint"],
            tuple(names["files"]),
            tuple(names["captions"]),
            vectors["images"],
            vectors["captions"],
        )
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise InputError(folder, "a damaged index", "one that this command built", REMEDY) from error
    if len(index.files) != len(index.image_ID) or len(index.captions) != len(index.caption_CD):
        raise InputError(folder, "a damaged index", "as many names as vectors", REMEDY)
    if index.fingerprint != fingerprint:
        raise InputError(folder, "the index of another model", "one of the model given", REMEDY)
    return index


def embed_query(trained: TrainedRetriever, text: str | None = None, image: Path | None = None) -> np.ndarray:
    """Unit vector (D,) of a text, or of an image file.

    Raises:
        ConfigError: the text is empty.
        InputError: the file is no readable image.
    """
    if image is None:
        if not (text or "").strip():
            raise ConfigError("TEXT", text, "must hold a word, or give --image")
        return embed_captions(trained.model, trained.tokenizer, [str(text)], 1)[0]
    try:
        pixels = decode(image, trained.recipe.image.image_size)
    except UNREADABLE as error:
        raise InputError(
            image, "no readable image", "a picture such as JPEG or PNG", "give another"
        ) from error
    return embed_images(trained.model, MemoryPixels(torch.from_numpy(pixels)[None]), 1)[0]


def _nearest(vectors_ID: np.ndarray, names: Sequence[str], query_D: np.ndarray, count: int) -> list[Hit]:
    if not len(names):
        return []
    search = NearestNeighbors(n_neighbors=min(count, len(names)), metric="cosine", algorithm="brute")
    distances, found = search.fit(vectors_ID).kneighbors(query_D[None])
    return [Hit(names[index], 1 - float(gap)) for index, gap in zip(found[0], distances[0], strict=True)]
