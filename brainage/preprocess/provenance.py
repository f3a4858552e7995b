"""How a volume was made: versions, steps with their settings, and the affine in ITK's format."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from brainage import __version__

# What computes the volumes. brainage itself is told apart by the version of the chain.
_COMPUTING = ("monai", "nibabel", "numpy", "scipy", "SimpleITK", "torch")
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_PLAIN = (bool, int, float, str, type(None))


@lru_cache(maxsize=1)
def _versions() -> tuple[tuple[str, str], ...]:
    return (("brainage", __version__), *((name, version(name)) for name in _COMPUTING))


def software_versions() -> dict[str, str]:
    """Versions of brainage and of what computes the volumes."""
    return dict(_versions())


def same_software(recorded: Any) -> bool:
    """Whether a sidecar's ``Versions`` promise the bytes that this installation would make."""
    if not isinstance(recorded, Mapping):
        return False
    return all(recorded.get(name) == here for name, here in _versions() if name != "brainage")


def steps_of(transforms: Sequence[Any]) -> list[dict[str, Any]]:
    """Each transform's name and those settings of it that its constructor takes, as JSON knows them."""
    steps = []
    for transform in transforms:
        names = [name for name in inspect.signature(type(transform)).parameters if name != "keys"]
        settings = {name: _plain(getattr(transform, name)) for name in names if hasattr(transform, name)}
        steps.append({"Name": type(transform).__name__, "Parameters": settings})
    return steps


def write_itk_affine(path: Path, native_to_mni: np.ndarray) -> None:
    """Write the mapping as ITK's text format has it, for ``antsApplyTransforms -t`` and SimpleITK.

    ITK resamples by asking where a point of the *target* comes from, in LPS: the file named
    ``from-T1w_to-MNI`` holds the mapping of MNI points to the scan's, as those of ANTs and fMRIPrep do.

    Args:
        path: to write, ``.txt``.
        native_to_mni: (4, 4) world RAS mm of the scan -> world RAS mm of the template.
    """
    matrix = _RAS_TO_LPS @ np.linalg.inv(np.asarray(native_to_mni, dtype=np.float64)) @ _RAS_TO_LPS
    numbers = " ".join(repr(float(value)) for value in [*matrix[:3, :3].ravel(), *matrix[:3, 3]])
    lines = (
        "#Insight Transform File V1.0",
        "#Transform 0",
        "Transform: AffineTransform_double_3_3",
        f"Parameters: {numbers}",
        "FixedParameters: 0 0 0",
    )
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return getattr(value, "__name__", None) or type(value).__name__
