"""The image-quality metrics of a scan.

Names and formulas are MRIQC's (``quality_metrics``). What differs from it: tissues are told apart by the two
landmarks of ``normalize`` instead of FAST's mixture; the air is looked at on voxels of about 2 mm; smoothness
is measured in the brain rather than in the head. Figures are therefore near to MRIQC's but not its norms.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from monai.transforms import Transform
from scipy import ndimage

from brainage.preprocess.normalize import Landmarks, tissue_landmarks
from brainage.preprocess.quality_metrics import (
    artefacts,
    cjv,
    cnr,
    distribution,
    efc,
    fber,
    fwhm,
    gsr,
    inu,
    qi_1,
    snr,
    snr_dietrich,
    wm2max,
)
from brainage.preprocess.quality_regions import FEWEST_AIR_VOXELS, ghost_regions, sure_tissues, surroundings

# Fewer voxels of a tissue than this have no statistics.
FEWEST_VOXELS = 200
# Margin around the brain that tissues are looked for in, voxels.
_MARGIN = 4


class MeasureImageQualityd(Transform):
    """Adds image-quality metrics to ``qc``; a figure that a scan does not allow is left out.

    From ``image`` (after N4), ``uncorrected`` (before), ``brain_mask``, ``stripped``, ``native_to_mni`` and
    ``volume`` (before its normalisation):

    - of every scan: ``inu_range``, ``inu_med``, ``fwhm_avg`` (voxels);
    - where grey and white matter can be told apart: ``snr_csf``, ``snr_gm``, ``snr_wm``, ``snr_total``
      (their mean), ``cjv``, ``wm2max``;
    - of heads: ``efc``; where air has a signal, that is the scanner did not erase it: ``fber``, ``qi_1``,
      ``snrd_total``, ``cnr`` and ``gsr``, the largest of the three axes.

    Leaves the ``landmarks`` of ``volume`` for its normalisation, if there are any.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        image = out["image"][0].cpu().numpy()
        affine = out["image"].affine.numpy()
        brain = out["brain_mask"][0].cpu().numpy() > 0
        out["qc"] = dict(out.get("qc", {}))
        if not brain.any():
            return out
        qc: dict[str, float] = {}
        box = _box(brain)
        inner, mask = image[box], brain[box]
        uncorrected = out["uncorrected"][0].cpu().numpy()
        field = uncorrected[box][mask] / np.maximum(inner[mask], 1e-6)
        field = field[field > 0]
        if field.size:
            qc["inu_range"], qc["inu_med"] = inu(field / field.mean())
        qc["fwhm_avg"] = float(np.mean(fwhm(inner, mask)))
        # Where there are none, the normalisation says so and refuses the scan.
        with suppress(ValueError):
            out["landmarks"] = tissue_landmarks(out["volume"][0].cpu().numpy())
        tissues = _tissues(inner, mask, affine, out["landmarks"]) if "landmarks" in out else {}
        if tissues:
            names = ("csf", "gm", "wm")
            ratios = {f"snr_{name}": snr(tissues[name]) for name in names if name in tissues}
            qc.update(ratios)
            if len(ratios) == len(names):
                qc["snr_total"] = float(np.mean(list(ratios.values())))
            qc["cjv"] = cjv(tissues["wm"], tissues["gm"])
            qc["wm2max"] = wm2max(image, tissues["wm"])
        if not out["stripped"]:
            native_to_mni = np.asarray(out["native_to_mni"], float)
            _measure_air(qc, image, uncorrected, brain, affine, native_to_mni, tissues)
        out["qc"] |= {name: value for name, value in qc.items() if math.isfinite(value)}
        return out


def _box(brain: np.ndarray) -> tuple[slice, ...]:
    (found,) = ndimage.find_objects(brain.astype(np.uint8))
    return tuple(slice(max(0, part.start - _MARGIN), part.stop + _MARGIN) for part in found)


def _tissues(image: np.ndarray, mask: np.ndarray, affine: np.ndarray, landmarks: Landmarks) -> dict[str, Any]:
    """Distribution of the intensities of ``csf``, ``gm``, ``wm``; none if one is rare."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    sure = sure_tissues(image, mask, sizes, landmarks.grey, landmarks.white)
    found = {
        name: distribution(image[where])
        for name, where in zip(("csf", "gm", "wm"), sure, strict=True)
        if where.sum() >= FEWEST_VOXELS
    }
    return found if {"gm", "wm"} <= found.keys() else {}


def _measure_air(
    qc: dict[str, float],
    image: np.ndarray,
    uncorrected: np.ndarray,
    brain: np.ndarray,
    affine: np.ndarray,
    native_to_mni: np.ndarray,
    tissues: Mapping[str, Any],
) -> None:
    qc["efc"] = efc(image)
    around = surroundings(image, brain, affine, native_to_mni)
    if around.air.sum() < FEWEST_AIR_VOXELS:
        return
    found = artefacts(around.image, around.air, around.distance)
    qc["qi_1"] = qi_1(around.air, found)
    # Before N4, whose field means nothing in the air and differs from one side of the head to the other.
    raw, signal = uncorrected[around.some], float(np.median(uncorrected[brain]))
    if signal > 0:
        ghosts = [gsr(raw[ghost], raw[background], signal) for ghost, background in ghost_regions(around)]
        qc["gsr"] = max(ghosts, default=math.nan)
    outside = (around.distance > 0) & (around.image > 0)
    qc["fber"] = fber(around.image[around.head], around.image[outside])
    clean = around.air & ~found
    noise = distribution(around.image[clean])
    if noise.mad > 0 and tissues:
        present = [tissues[name] for name in ("csf", "gm", "wm") if name in tissues]
        qc["snrd_total"] = float(np.mean([snr_dietrich(tissue, noise) for tissue in present]))
        qc["cnr"] = cnr(tissues["wm"], tissues["gm"], noise)
