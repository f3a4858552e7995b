"""Intensity normalisation on the model grid, by the three tissues that every T1 scan shows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from monai.transforms import Transform
from scipy import ndimage

from brainage.preprocess.itk import tensor_like
from brainage.preprocess.template import template_tissues

FLUID, GREY, WHITE, CEILING = 0.0, 0.5, 1.0, 1.5

_ITERATIONS = 10
# Share of each tissue that no place excludes: a shrunken brain has fluid where the template has cortex.
_ANYWHERE = 0.1


class Landmarks(NamedTuple):
    """Intensities of the tissues, in the units of the volume."""

    fluid: float
    grey: float
    white: float


@lru_cache(maxsize=1)
def _priors() -> np.ndarray:
    """Prior of fluid, grey and white matter (3, 80, 96, 80), blurred by 3 mm for what an affine leaves."""
    inside, grey, white = template_tissues()
    tissues = (np.clip(inside - grey - white, 0, 1), grey, white)
    blurred = np.stack([ndimage.gaussian_filter(tissue.astype(np.float32), 1.5) for tissue in tissues])
    shares = blurred / np.maximum(blurred.sum(0), 1e-3)
    return (1 - _ANYWHERE) * shares + _ANYWHERE / 3


@lru_cache(maxsize=1)
def _ventricles() -> np.ndarray:
    """Voxels, more than 12 mm inside the brain, where the template has hardly any tissue."""
    inside, grey, white = template_tissues()
    return inside & (grey + white < 0.15) & ndimage.binary_erosion(inside, iterations=6)


def tissue_landmarks(volume: np.ndarray) -> Landmarks:
    """The intensities of fluid, grey and white matter of a brain on the model grid.

    Grey and white matter are means of a mixture of three Gaussians with the template's tissue
    probabilities as priors, fitted by expectation maximisation (Ashburner & Friston 2005, unified
    segmentation, doi:10.1016/j.neuroimage.2005.02.018, without its warps and field). Voxels shared between
    tissues pull them inwards, by the same share on every scan. A mean of fluid would move with the amount
    of it; the fluid's landmark is the 5th percentile in the template's ventricles.

    Args:
        volume: (80, 96, 80), background 0.

    Raises:
        ValueError: there is no brain in it, or white matter is not brighter than grey matter, as on a scan
            that is not T1-weighted.
    """
    inside, grey, white = template_tissues()
    brain = inside & (volume > 0)
    sure_white, sure_grey = volume[brain & (white > 0.9)], volume[brain & (grey > 0.6)]
    if sure_white.size < 1000 or sure_grey.size < 1000:
        raise ValueError("hardly any voxel lies where the template has white matter")
    values = volume[brain].astype(np.float32)
    bright = float(np.median(sure_white))
    if not np.median(sure_grey) < bright:
        raise ValueError("grey matter is not darker than white matter")
    _, grey_mean, white_mean = _mixture(values, _priors()[:, brain], bright)
    if not 0.4 * white_mean < grey_mean < 0.95 * white_mean:
        raise ValueError("grey matter is not darker than white matter")
    ventricles = volume[brain & _ventricles()]
    fluid = float(np.percentile(ventricles, 5)) if ventricles.size >= 100 else 0.0
    return Landmarks(min(fluid, 0.75 * grey_mean), grey_mean, white_mean)


def _mixture(values: np.ndarray, prior_3V: np.ndarray, bright: float) -> list[float]:
    """Means of fluid, grey and white matter by expectation maximisation over V voxels."""
    means = np.array([0.3, 0.7, 1.0], np.float32) * bright
    spreads = np.array([0.12, 0.1, 0.07], np.float32) * bright
    log_prior_3V = np.log(prior_3V)
    for _ in range(_ITERATIONS):
        z_3V = (values - means[:, None]) / spreads[:, None]
        log_3V = log_prior_3V - 0.5 * z_3V**2 - np.log(spreads)[:, None]
        share_3V = np.exp(log_3V - log_3V.max(0))
        share_3V /= share_3V.sum(0)
        # Vessels and fat are brighter than any tissue.
        share_3V *= values < 1.35 * means[2]
        weight = share_3V.sum(1, dtype=np.float64)
        means = (share_3V @ values / weight).astype(np.float32)
        variance = (share_3V * (values - means[:, None]) ** 2).sum(1, dtype=np.float64) / weight
        # A class of equal values must not become a spike that no other voxel can leave or enter.
        spreads = np.maximum(np.sqrt(variance), 0.03 * means[2]).astype(np.float32)
    return [float(mean) for mean in means]


def normalised(volume: np.ndarray, landmarks: Landmarks) -> np.ndarray:
    """The volume (80, 96, 80) with fluid at 0, grey at 0.5 and white matter at 1, clipped to [0, 1.5].

    Straight between the landmarks: a voxel half of fluid and half of grey matter gets 0.25 on any scanner,
    whatever its contrast. What lies outside the template's brain (neck, vessels, eyes) is removed.
    """
    inside, _, _ = template_tissues()
    fluid, grey, white = landmarks
    scaled = np.interp(volume, [fluid, grey, white, 2 * white - grey], [FLUID, GREY, WHITE, CEILING])
    return np.where(inside & (volume > 0), scaled, 0.0).astype(np.float32)


class NormalizeIntensityd(Transform):
    """Maps fluid to 0, grey matter to 0.5 and white matter to 1 in ``volume``, piecewise linearly.

    Fluid gets the value of the background: whether a brain mask kept the rim of fluid around the brain
    makes no difference to the model. Uses the ``landmarks`` of ``volume`` where an earlier step has found
    them, and removes them, since they are not those of the new volume. Adds the QC figures
    ``grey_white_ratio`` and ``fluid_white_ratio``, before normalisation.

    Raises:
        ValueError: see :func:`tissue_landmarks`.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        raw = out["volume"][0].cpu().numpy()
        landmarks = out.pop("landmarks", None) or tissue_landmarks(raw)
        out["volume"] = tensor_like(normalised(raw, landmarks), out["volume"])
        ratios = {
            "grey_white_ratio": landmarks.grey / landmarks.white,
            "fluid_white_ratio": landmarks.fluid / landmarks.white,
        }
        out["qc"] = {**out.get("qc", {}), **ratios}
        return out
