"""Figures that tell a good preprocessing from a poor one, and the verdict that the recipe's limits give."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.transforms import Transform

from brainage.anatomy.grid import MODEL_GRID
from brainage.config import QcRecipe
from brainage.preprocess.itk import array_from_image, image_from_tensor, model_grid_image, transform_of
from brainage.preprocess.template import template_tissues

# What to suspect of a scan whose figure is too low, and too high.
REASONS: dict[str, tuple[str, str]] = {
    "head_ncc": ("the head hardly resembles the head template", ""),
    "registration_ncc": ("the aligned brain hardly resembles the template", ""),
    "brain_volume_ml": (
        "the brain mask is small: a child, a cut scan, or a failed extraction",
        "the brain mask is large: skull or neck may have been kept",
    ),
    "mask_in_template": ("the mask reaches beyond the template's brain", ""),
    "template_covered": ("part of the brain is missing", ""),
    "brain_in_view": ("part of the brain lies outside the field of view", ""),
    "cut_cm2": ("", "the brain is cut off by the edge of the field of view"),
    "empty_in_mask": ("", "part of the brain is black, as if erased or not measured"),
    "scale": ("the brain is unusually large", "the brain is unusually small, as a child's or an animal's"),
    "stretch": ("", "alignment stretched one axis much more than another"),
    "rotation_deg": ("", "the head is turned far, as with wrong orientation codes"),
    "largest_voxel_mm": ("", "voxels are much coarser than the model's 2 mm"),
    "grey_white_ratio": (
        "grey matter is unusually dark beside white matter",
        "contrast of grey to white matter is weak",
    ),
    "cjv": ("", "grey and white matter overlap: noise, motion or an uneven field"),
    "snr_wm": ("white matter is uneven: noise, motion or an uneven field", ""),
    "inu_range": ("", "the receive field was very uneven before correction"),
    "efc": ("", "the image is blurred or ghosted, or noise fills the background"),
    "qi_1": ("", "something bright lies in the air: ghosts or wrap-around"),
    "gsr": ("", "ghosts lie beside the head, as when it moves during the scan"),
    "left_right": ("left and right look swapped, as in a mirror image; check the scan's orientation", ""),
}


class MeasureQualityd(Transform):
    """Adds figures of mask and alignment to ``qc``, from ``image``, ``brain_mask`` and the two affines.

    ``brain_volume_ml`` of the native mask; ``mask_in_template`` and ``template_covered``, shares of the
    aligned mask and of the template's brain that lie in each other; ``brain_in_view``, the share of the
    template's brain that the scan's grid holds; ``cut_cm2``, the area of the mask on the outermost layer of
    voxels with the most of it; ``empty_in_mask``, the share of the mask darker than a twentieth of its
    median; ``scale``, the determinant of the affine to MNI; ``stretch``, the ratio of its largest to its
    smallest singular value; ``rotation_deg``; ``voxel_{x,y,z}_mm`` along the file's own axes, and the
    ``largest_voxel_mm`` of them.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        mask = image_from_tensor(out["brain_mask"])
        inside = out["brain_mask"][0].cpu().numpy() > 0
        voxels = int(np.count_nonzero(inside))
        native_ml = voxels * float(np.prod(mask.GetSpacing())) / 1000
        matrix = np.asarray(out["native_to_mni"], dtype=np.float64)
        reference = model_grid_image()
        to_native = transform_of(np.linalg.inv(matrix))
        moved = array_from_image(sitk.Resample(mask, reference, to_native, sitk.sitkNearestNeighbor)) > 0
        template = template_tissues()[0]
        # All of the mask, also what lies outside the model grid.
        aligned_ml = native_ml * abs(np.linalg.det(matrix[:3, :3]))
        common_ml = float((moved & template).sum()) * MODEL_GRID.spacing**3 / 1000
        template_ml = float(template.sum()) * MODEL_GRID.spacing**3 / 1000
        left, stretches, right = np.linalg.svd(matrix[:3, :3])
        angle = np.arccos(np.clip((np.trace(left @ right) - 1) / 2, -1, 1))
        sizes = np.linalg.norm(np.asarray(out["native_affine"])[:3, :3], axis=0)
        values = out["image"][0].cpu().numpy()[inside]
        out["qc"] = {
            **out.get("qc", {}),
            "brain_volume_ml": native_ml,
            "mask_in_template": float(min(1.0, common_ml / max(aligned_ml, 1e-6))),
            "template_covered": common_ml / template_ml,
            "brain_in_view": _in_view(template, matrix, out["brain_mask"].affine.numpy(), inside.shape),
            "cut_cm2": _cut(inside, np.array(mask.GetSpacing())),
            "empty_in_mask": float(np.mean(values < 0.05 * np.median(values))) if voxels else 1.0,
            "scale": float(np.linalg.det(matrix[:3, :3])),
            "stretch": float(stretches[0] / stretches[2]),
            "rotation_deg": float(np.degrees(angle)),
            **{f"voxel_{axis}_mm": float(size) for axis, size in zip("xyz", sizes, strict=True)},
            "largest_voxel_mm": float(sizes.max()),
        }
        return out


def judge(qc: Mapping[str, float], recipe: QcRecipe) -> tuple[list[str], list[str]]:
    """Warnings and failures, clauses of what is wrong with a scan of these figures; both empty if good.

    A figure that was not measured counts as good.
    """
    warnings, failures = [], []
    for name, reasons in REASONS.items():
        limit, value = getattr(recipe, name), qc.get(name)
        if limit is None or value is None:
            continue
        # What is no number lies below everything.
        too_high = limit.good[1] is not None and value > limit.good[1]
        clause = f"{reasons[too_high] or reasons[not too_high]} ({name} {_short(value)})"
        if not _within(value, limit.usable):
            failures.append(clause)
        elif not _within(value, limit.good):
            warnings.append(clause)
    return warnings, failures


def not_of_figures(warnings: Iterable[str]) -> list[str]:
    """Those of a scan's warnings that do not come from :func:`judge`, but from reading it."""
    return [words for words in warnings if not any(f"({name} " in words for name in REASONS)]


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _within(value: float, ends: tuple[float | None, float | None]) -> bool:
    low, high = ends
    return (low is None or value >= low) and (high is None or value <= high) and value == value


def _in_view(
    template: np.ndarray, native_to_mni: np.ndarray, affine: np.ndarray, shape: tuple[int, ...]
) -> float:
    """Share of the template's brain that lies on a grid of ``shape`` voxels with the (4, 4) ``affine``."""
    to_voxel = np.linalg.inv(native_to_mni @ affine) @ MODEL_GRID.affine
    places = np.argwhere(template) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    return float(np.mean(np.all((places >= -0.5) & (places <= np.array(shape) - 0.5), axis=1)))


def _cut(inside: np.ndarray, spacing: np.ndarray) -> float:
    """Largest area of a mask on one of the six faces of its grid, cm2."""
    areas = [
        float(np.take(inside, end, axis).sum()) * float(np.prod(np.delete(spacing, axis))) / 100
        for axis in range(3)
        for end in (0, -1)
    ]
    return max(areas)
