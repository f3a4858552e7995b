"""Outputs that are either whole or absent: written beside their place, then renamed into it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

# Before the name of a file that is being written; and the longest name that usual disks take, bytes.
PARTIAL = ".partial-"
LONGEST_NAME = 255


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, with the same suffixes; rename it to ``path`` on success.

    Missing folders are made. After an error the temporary file is removed and ``path`` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(PARTIAL + path.name)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def has_room_for_name(path: str | PathLike[str]) -> bool:
    """Whether usual disks take a file of this name, and its temporary name while it is written."""
    return len(os.fsencode(PARTIAL + Path(path).name)) <= LONGEST_NAME


def write_json(path: str | PathLike[str], content: Any) -> None:
    """Write ``content`` as indented JSON; a NaN, which JSON lacks, is a ``ValueError``."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def sha256_of(path: str | PathLike[str]) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
