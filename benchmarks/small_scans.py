"""Small simulated scans for benchmarks: the ICBM152 brain at 2 mm, turned, scaled, darkened and noisy."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy import ndimage

AXES = ("RAS", "LAS", "PSR", "LPS", "ASR", "RSA", "SPL")


def small_scan(index: int, seed: int = 0) -> nib.Nifti1Image:
    """A stripped brain of about 90 x 110 x 90 voxels, int16; the same for the same arguments."""
    rng = np.random.default_rng([seed, index])
    template, mask = load_mni152_template(resolution=2), load_mni152_brain_mask(resolution=2)
    brain = template.get_fdata(dtype=np.float32) * (np.asarray(mask.dataobj) > 0)
    angle = np.deg2rad(rng.uniform(-8, 8))
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    matrix = turn / rng.uniform(0.94, 1.06, 3)
    centre = (np.array(brain.shape) - 1) / 2
    shift = centre - matrix @ (centre + rng.uniform(-3, 3, 3))
    moved = ndimage.affine_transform(brain, matrix, shift, order=1)
    ramp = np.linspace(-0.2, 0.2, moved.shape[1], dtype=np.float32)[None, :, None]
    noisy = moved * np.exp(ramp) * 900 + rng.normal(0, 12, moved.shape)
    values = np.where(moved > 0.2, np.maximum(noisy, 1), 0).astype(np.int16)
    image = nib.Nifti1Image(values, template.affine)
    wanted = nib.orientations.axcodes2ornt(AXES[index % len(AXES)])
    image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))
    image.set_sform(image.affine, "scanner")
    image.set_qform(image.affine, "scanner")
    image.header.set_xyzt_units("mm")
    return image


def write_small_scans(root: Path, count: int, start: int = 1) -> list[str]:
    """Write ``count`` of them into a BIDS folder; their participants."""
    names = []
    for index in range(start, start + count):
        name = f"sub-small{index:03d}"
        path = root / name / "anat" / f"{name}_T1w.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(small_scan(index), path)
        names.append(name)
    return names
