"""The files that ``predict --maps`` left of one scan, and the scan itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from brainage.anatomy.grid import SPACE
from brainage.data.formats_reading import open_image, read_values
from brainage.errors import BrainageError, InputError
from brainage.preprocess.geometry import geometry_of

NATIVE = "T1w"
_PREPROCESSED = f"_space-{SPACE}_res-2_desc-preproc_T1w.nii.gz"
_AGAIN = "run brainage predict --maps again on this scan"


@dataclass(frozen=True)
class ScanImages:
    """A scan and its maps on one grid.

    Attributes:
        prefix: path and beginning of the names of the maps.
        scan: the raw scan, or the volume of ``brainage preprocess``.
    """

    prefix: Path
    scan: Path

    @property
    def space(self) -> str:
        """``T1w``, the scan's own space, or the template's for a volume of ``brainage preprocess``."""
        return SPACE if self.scan.name.endswith(_PREPROCESSED) else NATIVE

    def path_of(self, name: str) -> Path:
        """Path of a map."""
        return self.prefix.with_name(f"{self.prefix.name}_space-{self.space}_desc-{name}_map.nii.gz")

    def map(self, name: str) -> nib.Nifti1Image:
        """A map on the grid of the scan.

        Raises:
            InputError: no such map, or one that cannot be read.
        """
        return read_image(self.path_of(name), "a map of brainage predict")

    def regions(self) -> nib.Nifti1Image | None:
        """The atlas on the scan's grid, numbered as in the region table; None where it was not written."""
        path = self.prefix.with_name(f"{self.prefix.name}_space-{self.space}_desc-regions_dseg.nii.gz")
        return read_image(path, "the atlas of brainage predict") if path.is_file() else None

    def mask(self) -> nib.Nifti1Image | None:
        """The brain mask on the grid of the scan; None for a volume of ``brainage preprocess``."""
        path = self.prefix.with_name(f"{self.prefix.name}_space-{NATIVE}_desc-brain_mask.nii.gz")
        return read_image(path, "a brain mask") if self.space == NATIVE and path.is_file() else None

    def t1(self) -> nib.Nifti1Image:
        """The scan, (X, Y, Z), with the affine that its maps were made for.

        Raises:
            InputError: the scan is not there or is no image, or the maps lie on another grid than it.
        """
        if not self.scan.exists():
            raise InputError(self.scan, "no such file", "the T1-weighted scan that was predicted", _AGAIN)
        image = open_image(self.scan)
        contribution = self.map("contribution")
        shape = tuple(int(size) for size in image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        # As preprocessing read it, whatever the format and the units.
        fits = shape == contribution.shape[:3] and np.allclose(
            geometry_of(image, shape, self.scan)[0], contribution.affine, atol=0.02
        )
        if not fits:
            raise InputError(
                self.path_of("contribution"),
                f"a map on another grid than {self.scan.name}",
                f"the grid and the affine of that scan, {' x '.join(map(str, shape))} voxels",
                _AGAIN,
            )
        return nib.Nifti1Image(read_values(image, shape, self.scan), contribution.affine)


def read_facts(prefix: Path) -> dict[str, Any] | None:
    """What ``*_regions.json`` says of a scan; None where there is no such file.

    Raises:
        InputError: not what ``predict --maps`` writes, or without the transform to MNI space.
    """
    path = prefix.with_name(f"{prefix.name}_regions.json")
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, "no JSON", "a file of brainage predict --maps", _AGAIN) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("regions"), list):
        raise InputError(path, "no region table", "a file of brainage predict --maps", _AGAIN)
    matrix = np.array(facts.get("native_to_mni", []), dtype=object)
    if matrix.shape != (4, 4):
        raise InputError(path, "no transform to MNI space", "a 4 x 4 matrix native_to_mni", _AGAIN)
    return facts


def read_image(path: Path, expected: str) -> nib.Nifti1Image:
    """A NIfTI file.

    Raises:
        InputError: missing or unreadable.
    """
    if not path.is_file():
        raise InputError(path, "no such file", expected, _AGAIN)
    try:
        return nib.Nifti1Image.from_filename(path)
    except BrainageError:
        raise
    except Exception as error:  # nibabel raises whatever the damage leads to
        raise InputError(path, "no readable NIfTI file", expected, _AGAIN) from error
