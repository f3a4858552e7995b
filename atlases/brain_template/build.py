"""Write the arrays of the ICBM 2009a brain that every scan is aligned to and normalised by.

    python atlases/brain_template/build.py [--out FOLDER]

They come from the maps that nilearn carries at 1 mm, which nilearn resamples to 2 mm by cubic splines;
tissues then go to the model grid by linear interpolation. That takes seconds in each process, and depends on
nilearn's version, so its result ships instead.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nilearn.datasets import (
    load_mni152_brain_mask,
    load_mni152_gm_template,
    load_mni152_template,
    load_mni152_wm_template,
)

from brainage.anatomy.grid import MODEL_GRID
from brainage.preprocess.itk import array_from_image, image_from_array, model_grid_image
from brainage.preprocess.template import BRAIN_FILE, GREY_FILE, MASK_FILE, WHITE_FILE


def brain() -> tuple[np.ndarray, np.ndarray]:
    """The T1 of the brain at 2 mm, (99, 117, 95) in [0, 1], zero around it; and its (4, 4) affine."""
    template = load_mni152_template(resolution=2)
    # Outside the brain the template holds faint interpolation noise.
    inside = np.asarray(load_mni152_brain_mask(resolution=2).dataobj) > 0
    return template.get_fdata(dtype=np.float32) * inside, template.affine


def tissues() -> dict[str, np.ndarray]:
    """Brain mask (uint8), grey and white matter probability (float32) on the model grid, (80, 96, 80)."""
    maps = {}
    for name, load in (
        (MASK_FILE, load_mni152_brain_mask),
        (GREY_FILE, load_mni152_gm_template),
        (WHITE_FILE, load_mni152_wm_template),
    ):
        image = load(resolution=2)
        itk = image_from_array(np.asarray(image.dataobj, dtype=np.float32), image.affine)
        moved = sitk.Resample(itk, model_grid_image(), sitk.Transform(), sitk.sitkLinear)
        maps[name] = array_from_image(moved)
    return maps | {MASK_FILE: (maps[MASK_FILE] > 0.5).astype(np.uint8)}


def write(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """As NIfTI, without rounding; the same bytes for the same array."""
    nifti = nib.Nifti1Image(array, affine)
    nifti.set_sform(affine, code="mni")
    nifti.set_qform(affine, code="mni")
    nifti.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(nifti.to_bytes(), mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    write(*brain(), arguments.out / BRAIN_FILE)
    for name, array in tissues().items():
        write(array, MODEL_GRID.affine, arguments.out / name)


if __name__ == "__main__":
    main()
