"""Drawn images in the layout and number of ImageNet-1k and COCO, for :mod:`images_at_scale`.

There are as many files as the real data has, but few different ones: the others are hard links to them. So
the folders take some hundred megabytes instead of 170 GB, while listing, shuffling and labels are those of
the real size. Decoding always reads from the disk's cache.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 1000
IMAGENET = {"train": 1_281_167, "val": 50_000}
COCO_SPLITS = {"train": 82_783, "restval": 30_504, "val": 5_000, "test": 5_000}
COCO_TEST_CAPTIONS = 25_010
SIZE = (500, 375)
"""Width and height of most images of ImageNet; those of COCO are 640 x 480."""


def draw_imagenet(folder: Path) -> None:
    """``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``, one different image a class."""
    rng = np.random.default_rng(0)
    for number in range(CLASSES):
        wnid = f"n{number:08}"
        first = folder / "train" / wnid / f"{wnid}_0.JPEG"
        _draw(first, SIZE, rng)
        for split, total in IMAGENET.items():
            place = folder / split / wnid
            place.mkdir(parents=True, exist_ok=True)
            for index in range(split == "train", total // CLASSES + (number < total % CLASSES)):
                os.link(first, place / f"{wnid}_{index}.JPEG")


def draw_coco(folder: Path) -> None:
    """``dataset_coco.json`` in Karpathy's form with ``train2014`` and ``val2014``; five captions an image."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    sources = [folder / "drawn" / f"{index}.jpg" for index in range(500)]
    for source in sources:
        _draw(source, (640, 480), rng)
    words = _words(rng)
    weights = 1 / np.arange(3, len(words) + 3)
    weights /= weights.sum()
    entries = []
    for split, count in COCO_SPLITS.items():
        place = "train2014" if split == "train" else "val2014"
        (folder / place).mkdir(exist_ok=True)
        per_image = np.full(count, 5)
        if split == "test":
            per_image[: COCO_TEST_CAPTIONS - 5 * count] += 1
        lengths = rng.integers(8, 14, per_image.sum())
        drawn = iter(rng.choice(words, lengths.sum(), p=weights).tolist())
        texts = iter([" ".join(next(drawn) for _ in range(length)) for length in lengths])
        for index, captions in enumerate(per_image):
            name = f"COCO_{place}_{split}{index:09}.jpg"
            os.link(sources[index % len(sources)], folder / place / name)
            sentences = [{"raw": next(texts)} for _ in range(captions)]
            entries.append({"filepath": place, "filename": name, "split": split, "sentences": sentences})
    (folder / "dataset_coco.json").write_text(json.dumps({"dataset": "drawn", "images": entries}))


def _draw(path: Path, size: tuple[int, int], rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(size)
    # Some fine grain, so that the files are about as large as photographs are.
    grain = rng.normal(0, 8, (size[1], size[0], 1))
    values = (np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)
    Image.fromarray(values).save(path, quality=90)


def _words(rng: np.random.Generator) -> list[str]:
    """Nine thousand words of two to four syllables."""
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "ar", "in", "on")]
    made = {"".join(rng.choice(syllables, rng.integers(2, 5))) for _ in range(9500)}
    return sorted(made)[:9000]
