"""Affine registration of a brain to MNI152NLin2009aSym."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.transforms import Transform

from brainage.preprocess.itk import (
    array_from_image,
    masked_image,
    matrix_of,
    transform_of,
)
from brainage.preprocess.mutual_information import register
from brainage.preprocess.own_files import read_transform
from brainage.preprocess.template import template_brain


def register_affine(brain: sitk.Image, fixed: sitk.Image | None = None) -> tuple[np.ndarray, float]:
    """Affine alignment of a skull-stripped brain (zero background) to the template brain.

    Rigid with one scale from the moments of the brain, then twelve parameters, each on a pyramid
    (Mattes mutual information; Mattes et al. 2003, doi:10.1109/TMI.2003.809072) with regular, hence
    reproducible, sampling.

    Returns:
        ``native_to_mni``: (4, 4) world RAS mm of the scan -> world RAS mm of the template.
        The normalised cross-correlation, inside the template brain, of the result with the template.
    """
    fixed = template_brain() if fixed is None else fixed
    small = _clip(_resample_isotropic(brain, 2.0))
    # Vessels and neck that a brain mask may have kept lie outside this mask and do not pull.
    near = sitk.BinaryDilate(fixed > 0, [3, 3, 3])
    start = sitk.CenteredTransformInitializer(
        fixed, small, sitk.Similarity3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    similarity = sitk.Similarity3DTransform(start)
    similarity.SetScale(_size(small) / _size(fixed))
    similarity = sitk.Similarity3DTransform(register(fixed, small, similarity, (4, 2), (4.0, 2.0))[0])
    affine = sitk.AffineTransform(3)
    affine.SetCenter(similarity.GetCenter())
    affine.SetMatrix(similarity.GetMatrix())
    affine.SetTranslation(similarity.GetTranslation())
    affine = sitk.AffineTransform(register(fixed, small, affine, (4, 2, 1), (4.0, 2.0, 0.0), near)[0])
    # The optimiser's transform takes template points to scan points.
    return np.linalg.inv(matrix_of(affine)), _likeness(small, fixed, affine)


def likeness(brain: sitk.Image, native_to_mni: np.ndarray) -> float:
    """The figure of :func:`register_affine` for a matrix that is already known."""
    small = _clip(_resample_isotropic(brain, 2.0))
    return _likeness(small, template_brain(), transform_of(np.linalg.inv(native_to_mni)))


def _likeness(small: sitk.Image, fixed: sitk.Image, to_scan: sitk.Transform) -> float:
    moved = array_from_image(sitk.Resample(small, fixed, to_scan, sitk.sitkLinear))
    inside = array_from_image(fixed) > 0
    return float(np.corrcoef(moved[inside], array_from_image(fixed)[inside])[0, 1])


def _resample_isotropic(image: sitk.Image, spacing: float) -> sitk.Image:
    blurred = sitk.SmoothingRecursiveGaussian(image, [max(0.1, spacing / 3)] * 3)
    size = [max(1, round(n * s / spacing)) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    return sitk.Resample(
        blurred,
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        [spacing] * 3,
        image.GetDirection(),
        0.0,
        sitk.sitkFloat32,
    )


def _clip(image: sitk.Image) -> sitk.Image:
    """Cap at the 98th percentile of the foreground, so that bright vessels do not fill the histogram."""
    values = sitk.GetArrayViewFromImage(image)
    foreground = values[values > 1e-6]
    if not foreground.size:
        return image
    return sitk.Clamp(image, sitk.sitkFloat32, 0.0, float(np.percentile(foreground, 98)))


def _size(image: sitk.Image) -> float:
    """Cube root of the foreground's volume, mm."""
    count = int((sitk.GetArrayViewFromImage(image) > 1e-6).sum())
    return float((count * np.prod(image.GetSpacing())) ** (1 / 3))


class RegisterToTemplated(Transform):
    """Adds ``native_to_mni`` and the QC figure ``registration_ncc`` from ``image`` and ``brain_mask``.

    ``native_to_mni`` is (4, 4), world RAS mm of the scan -> world RAS mm of MNI152NLin2009aSym; its matrix
    inverse leads back. It is found by :func:`register_affine`; read from the file ``own_transform`` where
    there is one; or the identity.

    Args:
        enabled: False for scans whose world is that of the template already.

    Raises:
        InputError: ``own_transform`` cannot be used.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        brain = masked_image(out["image"], out["brain_mask"])
        if "own_transform" in out or not self.enabled:
            matrix = read_transform(out["own_transform"]) if "own_transform" in out else np.eye(4)
            ncc = likeness(brain, matrix)
        else:
            matrix, ncc = register_affine(brain)
        out["native_to_mni"] = matrix
        out["qc"] = {**out.get("qc", {}), "registration_ncc": ncc}
        return out
