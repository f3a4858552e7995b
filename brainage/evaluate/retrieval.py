"""Recall of image-text retrieval, both ways, with any number of captions an image.

A caption counts at k if its image is among the k images nearest to it. An image counts at k if *any* of its
captions is among the k captions nearest to it. Equal similarities, which captions that read the same always
have, are in random order: the figures are the exact expectations over all orders, not the luck of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from brainage.errors import ConfigError

RECALL_AT = (1, 5, 10)
TIE_DECIMALS = 6
_CHUNK = 512


class Standing(NamedTuple):
    """How queries fared among their candidates.

    Attributes:
        better: candidates of others that are nearer than the query's best own one, (Q,).
        tied: candidates just as near as that one, with it, (Q,).
        own: those of ``tied`` that belong to the query, (Q,).
    """

    better: np.ndarray
    tied: np.ndarray
    own: np.ndarray

    def rank(self) -> np.ndarray:
        """Expected rank of the first own candidate, from 1."""
        # The first of m among t in random order lies at (t + 1) / (m + 1).
        return self.better + (self.tied + 1) / (self.own + 1)

    def hits(self, k: int) -> np.ndarray:
        """For each query the chance of an own candidate among the first ``k``, (Q,); 0 or 1 without ties."""
        room = np.clip(k - self.better, 0, self.tied)
        # None of the own ones among `room` of the tied: C(tied - own, room) / C(tied, room).
        others = self.tied - self.own
        possible = room <= others
        log_none = _log_binomial(others, np.where(possible, room, 0)) - _log_binomial(
            self.tied, np.where(possible, room, 0)
        )
        return np.asarray(1 - np.where(possible, np.exp(log_none), 0.0))


def standings(
    image_ID: np.ndarray, caption_CD: np.ndarray, owner_C: np.ndarray | Sequence[int]
) -> tuple[Standing, Standing]:
    """How images fared among captions, and captions among images.

    Similarities are computed a block at a time: those of 5,000 images and 25,010 captions would fill half a
    gigabyte.

    Args:
        image_ID: unit vectors of the images.
        caption_CD: unit vectors of the captions.
        owner_C: index of each caption's image.

    Raises:
        ConfigError: shapes do not fit, or an image has no caption.
    """
    owner = np.asarray(owner_C)
    count = len(image_ID)
    if owner.shape != (len(caption_CD),) or image_ID.shape[1:] != caption_CD.shape[1:]:
        raise ConfigError(
            "owner_C", owner.shape, f"must name the image of each of {len(caption_CD)} captions"
        )
    if set(np.unique(owner)) != set(range(count)):
        raise ConfigError("owner_C", f"{len(set(owner.tolist()))} images", f"must name all of {count} images")
    by_image = [
        _standing(
            np.round(rows @ caption_CD.T, TIE_DECIMALS), owner == np.arange(start, start + len(rows))[:, None]
        )
        for start, rows in _blocks(image_ID)
    ]
    by_caption = [
        _standing(
            np.round(rows @ image_ID.T, TIE_DECIMALS),
            owner[start : start + len(rows), None] == np.arange(count),
        )
        for start, rows in _blocks(caption_CD)
    ]
    first, second = (
        Standing(*map(np.concatenate, zip(*parts, strict=True))) for parts in (by_image, by_caption)
    )
    return first, second


def recall_table(
    image_ID: np.ndarray,
    caption_CD: np.ndarray,
    owner_C: np.ndarray | Sequence[int],
    block: int | None = None,
) -> dict[str, float | int]:
    """R@1, R@5, R@10 and median rank both ways.

    Args:
        image_ID, caption_CD, owner_C: see :func:`standings`.
        block: number of images of the "1K" protocol: consecutive blocks of that many images with their
            captions are searched by themselves and the figures averaged; a last block that is not full is
            left out. By default all images at once (for COCO's test split the "5K" protocol).

    Returns:
        ``image_to_text_r1``, ``..._r5``, ``..._r10``, ``..._median_rank``, the same ``text_to_image``, and
        ``images``, ``captions``, ``blocks``.

    Raises:
        ConfigError: shapes do not fit, an image has no caption, or ``block`` exceeds the number of images.
    """
    owner = np.asarray(owner_C)
    size = len(image_ID) if block is None else block
    if not 1 <= size <= len(image_ID):
        raise ConfigError("block", size, f"must be between 1 and the number of images ({len(image_ID)})")
    tables = []
    for start in range(0, len(image_ID) - size + 1, size):
        own = (owner >= start) & (owner < start + size)
        pair = standings(image_ID[start : start + size], caption_CD[own], owner[own] - start)
        tables.append(
            {
                f"{way}_{name}": value
                for way, standing in zip(("image_to_text", "text_to_image"), pair, strict=True)
                for name, value in _figures(standing).items()
            }
            | {"captions": int(own.sum())}
        )
    means: dict[str, float | int] = {name: float(np.mean([t[name] for t in tables])) for name in tables[0]}
    means["captions"] = sum(int(t["captions"]) for t in tables)
    return means | {"images": size * len(tables), "blocks": len(tables)}


def _figures(standing: Standing) -> dict[str, float]:
    return {f"r{k}": float(standing.hits(k).mean()) for k in RECALL_AT} | {
        "median_rank": float(np.median(standing.rank()))
    }


def _standing(similarity_QC: np.ndarray, own_QC: np.ndarray) -> Standing:
    best = np.where(own_QC, similarity_QC, -np.inf).max(axis=1, keepdims=True)
    tied = similarity_QC == best
    return Standing((similarity_QC > best).sum(axis=1), tied.sum(axis=1), (tied & own_QC).sum(axis=1))


def _blocks(rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    return [(start, rows[start : start + _CHUNK]) for start in range(0, len(rows), _CHUNK)]


def _log_binomial(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
