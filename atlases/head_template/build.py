"""Build the average head that brain extraction aligns scans to.

    python atlases/head_template/build.py HEADS LABELS [--without SUBJECT] [--out FOLDER]

HEADS is a BIDS folder of T1-weighted scans with skull, LABELS holds ``sub-X_*.nii.gz`` label maps (label
above 0 = brain) of some of them. Heads with labels are aligned by their brains to the ICBM brain; their mean
is the first template. Then, twice, every head is aligned to the template and the mean taken anew, in the
template's shape, together with each head's mirror image: left and right are alike, and each head counts
twice. Heads without labels take part in the mean head only.
"""

from __future__ import annotations

import argparse
import gzip
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor

from brainage.preprocess.head_registration import BRAIN_FILE, HEAD_FILE, HeadTemplate, align_head
from brainage.preprocess.itk import array_from_image, image_from_array, image_from_tensor
from brainage.preprocess.n4 import N4BiasCorrectiond
from brainage.preprocess.registration import register_affine, transform_of

# 2 mm, RAS, symmetric about x = 0; from the mouth to above the vertex.
SHAPE = (99, 117, 101)
AFFINE = np.array([[2.0, 0, 0, -98], [0, 2.0, 0, -134], [0, 0, 2.0, -98], [0, 0, 0, 1.0]])
ROUNDS = 2
# Brain is about 1, fat up to 2.
CEILING = 2.0

log = logging.getLogger("head_template")
Pair = tuple[np.ndarray, np.ndarray | None]


def read(path: Path) -> sitk.Image:
    """A NIfTI file, float32, axes in the order of RAS."""
    image = nib.as_closest_canonical(nib.load(path))
    return image_from_array(np.asarray(image.dataobj).astype(np.float32), image.affine)


def read_head(path: Path) -> sitk.Image:
    """A scan without its bias field."""
    image = nib.as_closest_canonical(nib.load(path))
    values = torch.from_numpy(np.asarray(image.dataobj).astype(np.float32))[None]
    tensor = MetaTensor(values, affine=torch.from_numpy(image.affine))
    return image_from_tensor(N4BiasCorrectiond("image")({"image": tensor})["image"])


def grid() -> sitk.Image:
    """An empty image on the template's grid."""
    return image_from_array(np.zeros(SHAPE, np.float32), AFFINE)


def scaled(head: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Intensities as multiples of the brain's median, at most ``CEILING``."""
    return np.clip(head / np.median(head[brain > 0.9]), 0.0, CEILING)


def by_brain(head: sitk.Image, brain: sitk.Image) -> Pair:
    """A head and its brain on the template's grid, by an affine of the brain to the ICBM brain."""
    to_mni, ncc = register_affine(head * brain)
    log.info("brain to ICBM brain: ncc %.2f", ncc)
    inverse = transform_of(np.linalg.inv(to_mni))
    head_there, brain_there = (
        array_from_image(sitk.Resample(i, grid(), inverse, sitk.sitkLinear)) for i in (head, brain)
    )
    return scaled(head_there, brain_there), brain_there


def by_head(head: sitk.Image, brain: sitk.Image | None, template: HeadTemplate) -> Pair:
    """The same by the head, affine and warp; without labels, no brain."""
    aligned = align_head(head, template)
    log.info("head to template: ncc %.3f", aligned.ncc)
    # Demons lead from the scan to the template; images are pulled the other way.
    field = sitk.InvertDisplacementField(aligned.warp.GetDisplacementField(), 20)
    there = sitk.CompositeTransform([aligned.affine, sitk.DisplacementFieldTransform(field)])
    head_there = array_from_image(sitk.Resample(head, grid(), there, sitk.sitkLinear))
    brain_there = (
        None if brain is None else array_from_image(sitk.Resample(brain, grid(), there, sitk.sitkLinear))
    )
    return scaled(head_there, array_from_image(template.brain)), brain_there


def mean(pairs: list[Pair]) -> HeadTemplate:
    """Mean of heads and, where known, of brains, with their mirror images."""
    head = np.mean([head for head, _ in pairs], axis=0)
    brain = np.mean([brain for _, brain in pairs if brain is not None], axis=0)
    return HeadTemplate(*(image_from_array((a + a[::-1]) / 2.0, AFFINE) for a in (head, brain)))


def build(heads: dict[str, sitk.Image], brains: dict[str, sitk.Image]) -> HeadTemplate:
    """The template of ``heads``; ``brains`` are masks (0 or 1) of some of them, by subject."""
    template = mean([by_brain(heads[subject], brain) for subject, brain in brains.items()])
    for _ in range(ROUNDS):
        template = mean([by_head(head, brains.get(subject), template) for subject, head in heads.items()])
    return template


def write(template: HeadTemplate, folder: Path) -> None:
    """Both images as uint8 in units of 1/100; the same bytes for the same template."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in ((HEAD_FILE, template.head), (BRAIN_FILE, template.brain)):
        stored = np.rint(array_from_image(image) * 100).astype(np.uint8)
        nifti = nib.Nifti1Image(stored, AFFINE)
        nifti.header.set_slope_inter(0.01, 0.0)
        nifti.set_sform(AFFINE, code="mni")
        nifti.set_qform(AFFINE, code="mni")
        nifti.header.set_xyzt_units("mm")
        (folder / name).write_bytes(gzip.compress(nifti.to_bytes(), mtime=0))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("heads", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--without", help="leave this subject out, to test the template on it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    heads, brains = {}, {}
    for path in sorted(arguments.heads.glob("sub-*/anat/*_T1w.nii.gz")):
        subject = path.name.partition("_")[0]
        if subject == arguments.without:
            continue
        heads[subject] = read_head(path)
        for labels in arguments.labels.glob(f"{subject}_*.nii.gz"):
            brains[subject] = sitk.Cast(read(labels) > 0, sitk.sitkFloat32)
    write(build(heads, brains), arguments.out)


if __name__ == "__main__":
    main()
