"""A brain that is not anyone's: the ICBM152 template at 2 mm, cropped to its mask's neighbourhood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template


@pytest.fixture(scope="session")
def template() -> nib.Nifti1Image:
    """The brain at 2 mm, in RAS, without skull; intensities 0 to 1000."""
    image = load_mni152_template(resolution=2)
    inside = np.asarray(load_mni152_brain_mask(resolution=2).dataobj) > 0
    brain = nib.Nifti1Image((image.get_fdata() * inside * 1000).astype(np.float32), image.affine)
    brain.header.set_xyzt_units("mm")
    brain.set_sform(image.affine, 1)
    brain.set_qform(image.affine, 1)
    return brain


@pytest.fixture
def save(tmp_path) -> Callable[..., Path]:
    """Write an array, with a good header unless told otherwise."""

    def write(
        array: np.ndarray,
        affine: np.ndarray | None = None,
        name: str = "sub-01_T1w.nii.gz",
        change: Callable[[nib.Nifti1Image], None] = lambda image: None,
    ) -> Path:
        image = nib.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(image.affine, 1)
        image.set_qform(image.affine, 1)
        change(image)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without an affine of its own, nibabel writes the header as it is.
        nib.save(nib.Nifti1Image(array, None, image.header), path)
        return path

    return write


@pytest.fixture
def noise() -> np.ndarray:
    """(50, 60, 50) positive values, a scan as far as loading can tell."""
    return np.random.default_rng(0).uniform(1, 200, (50, 60, 50)).astype(np.float32)
