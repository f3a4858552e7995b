"""Model files: tensors and a JSON header in one safetensors file. Reading one runs no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from brainage.errors import BrainageError, CheckpointError
from brainage.files import replacing


@dataclass(frozen=True)
class ModelFormat:
    """One kind of model file.

    Attributes:
        name: written into the file.
        expected, remedy: for the errors of files that are not of this kind.
    """

    name: str
    expected: str
    remedy: str

    def write(
        self, path: str | PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> None:
        """Write the file, whole or not at all."""
        contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        content = {"format": self.name, "brainage": json.dumps(dict(header), allow_nan=False)}
        with replacing(path) as partial:
            # save_file would let only its owner read the file.
            partial.write_bytes(save(contiguous, content))

    @contextmanager
    def reading(self, path: str | PathLike[str]) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
        """Header and tensors of a file; what its parts do when put together is an error of the file.

        Raises:
            CheckpointError: no such file, another kind of file, a damaged one, or one whose parts disagree.
        """
        path = Path(path)
        if not path.is_file():
            self._refuse(path, "no such file")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
        except (SafetensorError, OSError, ValueError) as error:
            self._refuse(path, "no safetensors file, or a damaged one", error)
        if metadata.get("format") != self.name:
            self._refuse(path, f"a safetensors file of the format {metadata.get('format', 'unnamed')!r}")
        try:
            yield json.loads(metadata["brainage"]), tensors
        except (KeyError, TypeError, ValueError, RuntimeError, BrainageError) as error:
            self._refuse(path, "a model whose parts do not fit together", error)

    def _refuse(self, path: Path, found: str, cause: Exception | None = None) -> NoReturn:
        raise CheckpointError(path, found, self.expected, self.remedy) from cause


def format_name(path: str | PathLike[str]) -> str | None:
    """The format that a safetensors file names; None where it names none or is no such file."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format")
    except (SafetensorError, OSError, ValueError):
        return None


def model_fingerprint(model: nn.Module, recipe: BaseModel) -> str:
    """Sixteen hexadecimal digits that stand for a model's recipe and weights."""
    digest = hashlib.sha256(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
