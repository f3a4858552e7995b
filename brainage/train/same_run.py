"""A folder of a training is gone on with by the same settings and data, or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from brainage.config import Recipe
from brainage.errors import CheckpointError
from brainage.files import write_json

SETTINGS = "settings.json"
# Where and how often, not what: these may change when a training resumes, and so may words. What the file of
# the first weights holds belongs to the data.
FREE = {
    "": {"name", "card", "init"},
    "train": {
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
        "accumulate",
        "deterministic",
        "checkpoint_every",
        "checkpoint_steps",
        "workers",
    },
}
_SHOWN = 4


def claim(out: Path, recipe: Recipe, data: Mapping[str, Any], fabric: Fabric) -> None:
    """Keep the settings of a training in its folder, or compare them with those of a training that is there.

    Called by all processes. Settings that no training state came of, say since the first weights did not
    fit, are replaced. A folder of a training before settings were kept is taken as it is.

    Args:
        out: folder of the training.
        recipe: it is made by.
        data: what it learns from, in a few plain values.
        fabric: the processes.

    Raises:
        CheckpointError: the folder holds a training with other settings or data, which are named.
    """
    path = out / SETTINGS
    wanted = _flat(recipe.model_dump(mode="json")) | _flat({"data": dict(data)})
    wanted = {key: value for key, value in wanted.items() if not _is_free(key)}
    # What the file does not know is new since then: a setting was as by default, and of data there was none.
    changed = _flat(recipe.model_dump(mode="json", exclude_defaults=True))
    changed |= _flat({"data": {name: value for name, value in data.items() if value is not None}})
    # Each process reads for itself, so that a fault stops them all; the file is whole whenever it is there.
    # No training state is written before all of them are through here.
    known = _read(path) if _begun(out) else None
    if known is None:
        if fabric.is_global_zero:
            write_json(path, wanted)
        return
    other = [key for key in sorted(known) if not _is_free(key) and known[key] != wanted.get(key)]
    other += [key for key in sorted(wanted) if key not in known and key in changed]
    if other:
        more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
        found, expected = (
            ", ".join(f"{key} = {settings.get(key, 'default')}" for key in other[:_SHOWN]) + more
            for settings in (known, wanted)
        )
        remedy = "train into another folder, or by the same settings on the same data"
        raise CheckpointError(path, f"a training with {found}", expected, remedy)


def digest(texts: Iterable[str]) -> str:
    """Sixteen hexadecimal digits that stand for texts in their order."""
    total = hashlib.sha256()
    for text in texts:
        total.update(text.encode("utf-8", "surrogateescape") + b"\0")
    return total.hexdigest()[:16]


def _begun(out: Path) -> bool:
    """Whether a training in ``out``, or in a folder of it, has come as far as a state or a model."""
    return (out / "model.safetensors").exists() or any(out.rglob("training_state.pt"))


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        remedy = "train into another folder, or delete the file"
        raise CheckpointError(path, "a damaged file", "the settings of this training", remedy) from error


def _is_free(key: str) -> bool:
    section, _, name = key.rpartition(".")
    return name in FREE.get(section, set()) or key.split(".")[0] in FREE[""]


def _flat(content: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{before}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
