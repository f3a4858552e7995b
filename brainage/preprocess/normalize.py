"""Intensity normalisation on the model grid, by the two tissues that every T1 scan shows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.transforms import Transform
from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template, load_mni152_wm_template
from scipy import ndimage

from brainage.preprocess.itk import array_from_image, image_from_array, model_grid_image, tensor_like

GREY, WHITE, CEILING = 0.5, 1.0, 1.5


@lru_cache(maxsize=1)
def template_tissues() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Brain mask (bool), grey and white matter probability of the template on MODEL_GRID, (80, 96, 80)."""
    reference = model_grid_image()
    maps = []
    for load in (load_mni152_brain_mask, load_mni152_gm_template, load_mni152_wm_template):
        image = load(resolution=2)
        itk = image_from_array(np.asarray(image.dataobj, dtype=np.float32), image.affine)
        maps.append(array_from_image(sitk.Resample(itk, reference, sitk.Transform(), sitk.sitkLinear)))
    return maps[0] > 0.5, maps[1], maps[2]


def tissue_landmarks(volume: np.ndarray) -> tuple[float, float]:
    """The commonest grey and white matter intensities of a brain on the model grid.

    The modes, within the template's sure grey and white matter, of a smoothed histogram. A mode, unlike
    a mean, hardly moves when atrophy brings cerebrospinal fluid to where the template has cortex.

    Args:
        volume: (80, 96, 80), background 0.

    Returns:
        Grey and white matter intensity, in the units of ``volume``.

    Raises:
        ValueError: there is no brain in it, or white matter is not brighter than grey matter, as on a scan
            that is not T1-weighted.
    """
    _, grey, white = template_tissues()
    white_values = volume[(white > 0.9) & (volume > 0)]
    if white_values.size < 1000:
        raise ValueError("hardly any voxel lies where the template has white matter")
    bright = _mode(white_values, float(np.percentile(white_values, 99)))
    # White matter in the grey prior would win in a brain of little grey; it is bright, so leave it out.
    grey_values = volume[(grey > 0.6) & (volume > 0.3 * bright) & (volume < 0.93 * bright)]
    if grey_values.size < 1000:
        raise ValueError("grey matter is not darker than white matter")
    dark = _mode(grey_values, bright)
    if not 0.4 * bright < dark < 0.95 * bright:
        raise ValueError("grey matter is not darker than white matter")
    return dark, bright


def _mode(values: np.ndarray, top: float) -> float:
    counts, edges = np.histogram(values, bins=200, range=(0.0, 1.2 * top))
    smooth = ndimage.gaussian_filter1d(counts.astype(float), 5.0)
    peak = int(smooth.argmax())
    return float(edges[peak : peak + 2].mean())


class NormalizeIntensityd(Transform):
    """Maps grey matter to 0.5 and white matter to 1 in ``volume``, linearly, clipped to [0, 1.5].

    Cerebrospinal fluid falls to about 0, the value of the background: whether a brain mask kept the rim
    of fluid around the brain makes no difference to the model. What lies outside the template's brain
    (neck, vessels, eyes) is removed. Adds the QC figure ``grey_white_ratio``, before normalisation.

    Raises:
        ValueError: see :func:`tissue_landmarks`.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        raw = out["volume"][0].cpu().numpy()
        grey, white = tissue_landmarks(raw)
        scaled = GREY + (WHITE - GREY) * (raw - grey) / (white - grey)
        inside, _, _ = template_tissues()
        volume = np.where(inside & (raw > 0), np.clip(scaled, 0.0, CEILING), 0.0).astype(np.float32)
        out["volume"] = tensor_like(volume, out["volume"])
        out["qc"] = {**out.get("qc", {}), "grey_white_ratio": grey / white}
        return out
