"""Which captions belong to which images: Karpathy's splits, COCO's own files, BLIP's lists, and tables.

Four forms are told apart by their content:

* Karpathy's (``dataset_coco.json``, ``dataset_flickr30k.json``, ``dataset_ucm.json``): images with sentences
  and splits; ``restval`` belongs to ``train``.
* COCO's own (``captions_val2014.json``): images and annotations. CLIP_benchmark reads these for COCO.
* A JSON list of ``{"image": ..., "caption": text or texts}``, as BLIP and CLIP_benchmark's mirrors have it.
* A table of two columns, image and caption, separated by commas or tabs, one caption a line.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainage.errors import InputError

logger = logging.getLogger("brainage")

REMEDY = "give a Karpathy or COCO caption file, a list of images and captions, or a table of the two"
HEADINGS = frozenset({"image", "image_name", "filename", "filepath", "file_name"})


@dataclass(frozen=True)
class Captions:
    """The images of a split that have captions.

    Attributes:
        files: paths below the folder of images, no two alike.
        texts: for each file its captions, at least one, none empty.
        dropped: why captions or images of the file are not here, with how often.
    """

    files: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    dropped: dict[str, int]

    @property
    def num_captions(self) -> int:
        """Number of captions of all images."""
        return sum(map(len, self.texts))


def read_captions(path: Path, split: str | None = None) -> Captions:
    """The captions of a split; of a file without splits, which is one split by itself, all.

    Empty captions, and images that are left without any, are dropped and counted in a warning.

    Raises:
        InputError: no such file, none of the known forms, no such split, or two images of one name.
    """
    if not path.is_file():
        raise InputError(path, "no such file", "captions", REMEDY)
    try:
        rows = list(_rows(path))
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise InputError(path, "neither JSON nor a table of text", "captions", REMEDY) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(path, "entries without an image or captions", "captions", REMEDY) from error
    known = {name for name, _, _ in rows if name is not None}
    if split is not None and known:
        rows = [row for row in rows if row[0] == split]
        if not rows:
            raise InputError(
                path, f"no image of the split {split!r}", f"one of {', '.join(sorted(known))}", "name one"
            )
    if not rows:
        raise InputError(path, "no image with a caption", "at least two", REMEDY)
    return _checked(path, rows)


def has_splits(path: Path) -> bool:
    """Whether a caption file says which images are for training."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "annotations" not in content


Row = tuple[str | None, str, list[str]]


def _rows(path: Path) -> Iterator[Row]:
    """Split (None where the file has none), image and captions."""
    if path.suffix.lower() != ".json":
        yield from _table(path)
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, list):
        yield from _grouped((entry["image"], entry["caption"]) for entry in content)
    elif "annotations" in content:
        names = {image["id"]: image["file_name"] for image in content["images"]}
        yield from _grouped((names[entry["image_id"]], entry["caption"]) for entry in content["annotations"])
    else:
        for entry in content["images"]:
            split = "train" if entry["split"] == "restval" else entry["split"]
            name = f"{entry['filepath']}/{entry['filename']}" if entry.get("filepath") else entry["filename"]
            yield split, name, [sentence["raw"] for sentence in entry["sentences"]]


def _table(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        first = file.readline()
        file.seek(0)
        lines = list(csv.reader(file, delimiter="\t" if "\t" in first else ",", skipinitialspace=True))
    if lines and lines[0] and lines[0][0].strip().lower() in HEADINGS:
        lines = lines[1:]
    # A caption may hold commas that nobody quoted.
    yield from _grouped((line[0], ", ".join(line[1:])) for line in lines if len(line) > 1)


def _grouped(pairs: Iterable[tuple[Any, Any]]) -> Iterator[Row]:
    texts: dict[str, list[str]] = {}
    for name, caption in pairs:
        texts.setdefault(str(name), []).extend(caption if isinstance(caption, list) else [str(caption)])
    for name, captions in texts.items():
        yield None, name, captions


def _checked(path: Path, rows: list[Row]) -> Captions:
    files: dict[str, tuple[str, ...]] = {}
    empty = without = 0
    for _, name, captions in rows:
        if name in files:
            raise InputError(
                path, f"two images of the name {Path(name).name}", "a name for each", "rename one"
            )
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(
                path, "an image outside the folder of images", "names below it", "correct the file"
            )
        kept = tuple(text.strip() for text in captions if text.strip())
        empty += len(captions) - len(kept)
        without += not kept
        if kept:
            files[name] = kept
    dropped = {"empty captions": empty, "images without a caption": without}
    dropped = {reason: count for reason, count in dropped.items() if count}
    if dropped:
        said = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        logger.warning("%s: left out %s", path.name, said)
    if not files:
        raise InputError(path, "no image with a caption", "at least two", REMEDY)
    return Captions(tuple(files), tuple(files.values()), dropped)
