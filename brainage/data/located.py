"""Where many images lie, in little memory: ImageNet's million paths would fill a gigabyte as objects."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np


@dataclass(frozen=True)
class Located:
    """Where the bytes of an image lie.

    Attributes:
        path: the image file, or the uncompressed tar that holds it.
        name: to tell it by.
        offset, size: bytes within the tar; None for a file of its own.
    """

    path: Path
    name: str
    offset: int | None = None
    size: int | None = None

    def open(self) -> IO[bytes]:
        """Its bytes."""
        if self.offset is None:
            return self.path.open("rb")
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))


class LocatedFiles:
    """Images below a folder, or within shards, packed into a few arrays.

    Worker processes share the arrays. A list of objects would be copied into each of them piece by piece,
    since counting references writes to them.

    Args:
        names: below the folder, or within the shard.
        folder: that the names start from; of shards, the one they lie in.
        shards: for each image the name of the tar that holds it; None for files of their own.
        places: for each image of a shard its offset and size, bytes.
    """

    def __init__(
        self,
        names: Iterable[str],
        folder: Path,
        shards: Sequence[str] | None = None,
        places: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._folder = folder
        self._end_N = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._names = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._shards: tuple[str, ...] = ()
        if shards is not None:
            self._shards = tuple(dict.fromkeys(shards))
            index = {shard: place for place, shard in enumerate(self._shards)}
            self._shard_N = np.array([index[shard] for shard in shards], dtype=np.int32)
            self._place_N2 = np.array(places, dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._end_N)

    def __getitem__(self, index: int) -> Located:
        place = range(len(self))[index]
        first = self._end_N[place - 1] if place else 0
        name = self._names[first : self._end_N[place]].tobytes().decode("utf-8", "surrogateescape")
        if not self._shards:
            return Located(self._folder / name, name)
        shard = self._shards[self._shard_N[place]]
        offset, size = self._place_N2[place].tolist()
        return Located(self._folder / shard, f"{shard}/{name}", offset, size)
