"""Build the average head that brain extraction aligns scans to.

    python atlases/head_template/build.py HEADS LABELS [--without SUBJECT] [--out FOLDER]

HEADS is a BIDS folder of T1-weighted scans with skull, LABELS holds ``sub-X_*.nii.gz`` label maps (label
above 0 = brain, fluid around it included). Heads with labels are aligned by their brains, affinely, to the
ICBM brain, and averaged together with their mirror images: left and right are alike, and each head counts
twice. ``--without`` leaves a subject out, so that the template can be tested on it.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor

from brainage.preprocess.head_registration import BRAIN_FILE, HEAD_FILE, HeadTemplate
from brainage.preprocess.itk import array_from_image, image_from_array, image_from_tensor, transform_of
from brainage.preprocess.n4 import N4BiasCorrectiond
from brainage.preprocess.registration import register_affine

# 2 mm, RAS, symmetric about x = 0; from the mouth to above the vertex.
SHAPE = (99, 117, 101)
AFFINE = np.array([[2.0, 0, 0, -98], [0, 2.0, 0, -134], [0, 0, 2.0, -98], [0, 0, 0, 1.0]])
# Brain is about 1, fat more.
CEILING = 2.0


def read(path: Path) -> MetaTensor:
    """A NIfTI file, (1, X, Y, Z) float32, axes in the order of RAS."""
    image = nib.as_closest_canonical(nib.load(path))
    values = torch.from_numpy(np.asarray(image.dataobj).astype(np.float32))[None]
    return MetaTensor(values, affine=torch.from_numpy(image.affine))


def aligned(head: sitk.Image, brain: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """A head, in multiples of its brain's median, and its brain mask (0 or 1), on the template's grid."""
    grid = image_from_array(np.zeros(SHAPE, np.float32), AFFINE)
    to_mni, _ = register_affine(head * brain)
    back = transform_of(np.linalg.inv(to_mni))
    there, mask = (array_from_image(sitk.Resample(i, grid, back, sitk.sitkLinear)) for i in (head, brain))
    return np.clip(there / np.median(there[mask > 0.9]), 0.0, CEILING), mask


def mean(pairs: list[tuple[np.ndarray, np.ndarray]]) -> HeadTemplate:
    """The mean of heads and brains, and of their mirror images."""
    head, brain = (np.mean(arrays, axis=0) for arrays in zip(*pairs, strict=True))
    return HeadTemplate(*(image_from_array((a + a[::-1]) / 2.0, AFFINE) for a in (head, brain)))


def write(template: HeadTemplate, folder: Path) -> None:
    """Both images as uint8 in units of 1/100; the same bytes for the same template."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in ((HEAD_FILE, template.head), (BRAIN_FILE, template.brain)):
        nifti = nib.Nifti1Image(np.rint(array_from_image(image) * 100).astype(np.uint8), AFFINE)
        nifti.header.set_slope_inter(0.01, 0.0)
        nifti.set_sform(AFFINE, code="mni")
        nifti.set_qform(AFFINE, code="mni")
        nifti.header.set_xyzt_units("mm")
        (folder / name).write_bytes(gzip.compress(nifti.to_bytes(), mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("heads", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--without", metavar="SUBJECT", help="leave this subject out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    pairs = []
    for path in sorted(arguments.heads.glob("sub-*/anat/*_T1w.nii.gz")):
        subject = path.name.partition("_")[0]
        labels = sorted(arguments.labels.glob(f"{subject}_*.nii.gz"))
        if subject != arguments.without and labels:
            head = image_from_tensor(N4BiasCorrectiond("image")({"image": read(path)})["image"])
            pairs.append(aligned(head, image_from_tensor((read(labels[0]) > 0).float())))
    write(mean(pairs), arguments.out)


if __name__ == "__main__":
    main()
