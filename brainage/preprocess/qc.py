"""Figures that tell a good preprocessing from a poor one, and the limits that say which it is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.transforms import Transform

from brainage.anatomy.grid import MODEL_GRID
from brainage.preprocess.itk import array_from_image, image_from_tensor, model_grid_image
from brainage.preprocess.normalize import template_tissues
from brainage.preprocess.registration import transform_of


@dataclass(frozen=True)
class Limit:
    """Range of a figure: outside ``good`` is a warning, outside ``usable`` a failure.

    Attributes:
        name: of the figure.
        good, usable: lowest and highest value.
        meaning: what to suspect, a clause.
    """

    name: str
    good: tuple[float, float]
    usable: tuple[float, float]
    meaning: str


_INF = math.inf

# Good scans measured so: head_ncc 0.78 to 0.95 (heads only); registration_ncc 0.35 to 0.67 (0.51 and more
# in 95 % of 287 OASIS scans, the lowest with large ventricles; 0.24 to 0.32 for a brain turned by 60 to 180
# degrees, which alignment does not find the way back from); grey_white_ratio 0.54 to 0.72; mask_in_template
# 0.78 to 0.93 (masks that keep the fluid around the brain are the low ones); template_covered 0.95 to 1;
# stretch 1.02 to 1.2. A native adult intracranial volume is 1.0 to 2.0 l, that of the template 1.9 l, hence
# the limits of volume and scale.
LIMITS = (
    Limit("head_ncc", (0.7, _INF), (0.5, _INF), "the head hardly resembles the head template"),
    Limit("registration_ncc", (0.45, _INF), (0.33, _INF), "the aligned brain hardly resembles the template"),
    Limit("brain_volume_ml", (700, 2300), (300, 3500), "the brain mask has an unlikely size"),
    Limit("mask_in_template", (0.75, _INF), (0.55, _INF), "the mask reaches beyond the template's brain"),
    Limit("template_covered", (0.90, _INF), (0.6, _INF), "part of the brain is missing"),
    Limit("scale", (0.7, 2.2), (0.4, 3.5), "alignment changed the brain's volume by an unlikely factor"),
    Limit("stretch", (0, 1.4), (0, 2.0), "alignment stretched one axis much more than another"),
    Limit("rotation_deg", (0, 45), (0, 180), "the head is turned far, as with wrong orientation codes"),
    Limit("grey_white_ratio", (0.45, 0.85), (0.0, _INF), "contrast of grey to white matter is unusual"),
    Limit("largest_voxel_mm", (0, 3.0), (0, _INF), "voxels are much coarser than the model's 2 mm"),
)


class MeasureQualityd(Transform):
    """Adds figures to ``qc``, from ``brain_mask``, ``native_to_mni`` and ``native_affine``.

    ``brain_volume_ml`` of the native mask; ``mask_in_template`` and ``template_covered``, shares of the
    aligned mask and of the template's brain that lie in each other; ``scale``, the determinant of the
    affine to MNI; ``stretch``, the ratio of its largest to its smallest singular value; ``rotation_deg``;
    ``voxel_{x,y,z}_mm`` along the file's own axes, and the ``largest_voxel_mm`` of them.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        mask = image_from_tensor(out["brain_mask"])
        voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))
        matrix = np.asarray(out["native_to_mni"], dtype=np.float64)
        reference = model_grid_image()
        to_native = transform_of(np.linalg.inv(matrix))
        moved = array_from_image(sitk.Resample(mask, reference, to_native, sitk.sitkNearestNeighbor)) > 0
        template = template_tissues()[0]
        # All of the mask, also what lies outside the model grid.
        aligned_ml = voxels * float(np.prod(mask.GetSpacing())) * abs(np.linalg.det(matrix[:3, :3])) / 1000
        common_ml = float((moved & template).sum()) * MODEL_GRID.spacing**3 / 1000
        template_ml = float(template.sum()) * MODEL_GRID.spacing**3 / 1000
        left, stretches, right = np.linalg.svd(matrix[:3, :3])
        angle = np.arccos(np.clip((np.trace(left @ right) - 1) / 2, -1, 1))
        sizes = np.linalg.norm(np.asarray(out["native_affine"])[:3, :3], axis=0)
        out["qc"] = {
            **out.get("qc", {}),
            "brain_volume_ml": voxels * float(np.prod(mask.GetSpacing())) / 1000,
            "mask_in_template": float(min(1.0, common_ml / max(aligned_ml, 1e-6))),
            "template_covered": common_ml / template_ml,
            "scale": float(np.linalg.det(matrix[:3, :3])),
            "stretch": float(stretches[0] / stretches[2]),
            "rotation_deg": float(np.degrees(angle)),
            **{f"voxel_{axis}_mm": float(size) for axis, size in zip("xyz", sizes, strict=True)},
            "largest_voxel_mm": float(sizes.max()),
        }
        return out


def judge(qc: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """Warnings and failures, clauses of what is wrong with a scan of these figures; both empty if good."""
    warnings, failures = [], []
    for limit in LIMITS:
        value = qc.get(limit.name)
        if value is None:
            continue
        clause = f"{limit.meaning} ({limit.name} {value:.3g})"
        if not limit.usable[0] <= value <= limit.usable[1]:
            failures.append(clause)
        elif not limit.good[0] <= value <= limit.good[1]:
            warnings.append(clause)
    return warnings, failures
