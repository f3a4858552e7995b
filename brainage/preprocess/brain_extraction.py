"""The brain mask of a scan, with or without skull."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.transforms import Transform
from scipy import ndimage

from brainage.preprocess.geometry import to_canonical
from brainage.preprocess.head_registration import HeadTemplate, align_head, load_head_template
from brainage.preprocess.itk import image_from_tensor, tensor_like
from brainage.preprocess.own_files import read_mask
from brainage.preprocess.stripped import is_stripped

MODES = ("auto", "always", "never")
# Far outside of intracranial volumes from birth on; what is merely unlikely is for quality control to say.
SMALLEST_ML, LARGEST_ML = 400.0, 3000.0
# Lowest correlation of an aligned head with the template; good ones have 0.8 and more.
LOWEST_NCC = 0.5


class BrainExtractiond(Transform):
    """Adds ``brain_mask``, (1, X, Y, Z) uint8 on the grid of ``image``, and ``stripped``, whether it was.

    The mask of a head is where the shipped template, aligned to it by affine and demons, has brain
    (ventricles and the fluid around the brain included); that of a stripped scan is what is not zero. For a
    head ``qc`` gains ``head_ncc``, the correlation with the aligned template. The file ``own_mask``, where
    there is one, is taken as it is.

    Args:
        mode: ``auto`` recognises scans without skull, ``always`` takes every scan for a head, ``never`` for
            stripped.
        template: average head; None for the shipped one.

    Raises:
        InputError: ``own_mask`` cannot be used.
        ValueError: the mode is unknown; there is nothing in the scan; the head does not fit the template or
            its brain has an impossible volume.
    """

    def __init__(self, mode: str = "auto", template: HeadTemplate | None = None) -> None:
        if mode not in MODES:
            raise ValueError(f"brain extraction has the modes {', '.join(MODES)}, not {mode!r}")
        self.mode, self.template = mode, template

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        image = out["image"]
        values = image[0].cpu().numpy()
        spacing = np.linalg.norm(image.affine.numpy()[:3, :3], axis=0)
        stripped = self.mode == "never" or (self.mode == "auto" and is_stripped(values, spacing))
        figures: dict[str, float] = {}
        if "own_mask" in out:
            own = read_mask(out["own_mask"], tuple(out["native_shape"]), out["native_affine"])
            mask, _ = to_canonical(own, out["native_affine"])
        elif stripped:
            mask = _solid(values > 0)
        else:
            aligned = align_head(image_from_tensor(image), self.template or load_head_template())
            mask = _solid(aligned.brain_on(image_from_tensor(image)) > 0.5)
            figures = {"head_ncc": aligned.ncc}
            _check(float(mask.sum() * np.prod(spacing) / 1000.0), aligned.ncc)
        out["brain_mask"] = tensor_like(mask.astype(np.uint8), image)
        out["stripped"] = stripped
        out["qc"] = {**out.get("qc", {}), **figures}
        return out


def _solid(mask: np.ndarray) -> np.ndarray:
    """The largest connected piece, holes filled."""
    labels, count = ndimage.label(mask)
    if not count:
        raise ValueError("the brain mask is empty")
    piece = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    # Holes are looked for in its box: the air around takes most of the time.
    (box,) = ndimage.find_objects(piece.view(np.uint8))
    piece[box] = ndimage.binary_fill_holes(piece[box])
    return piece


def _check(volume_ml: float, ncc: float) -> None:
    if ncc < -LOWEST_NCC:
        raise ValueError(
            f"bright and dark are the other way round than in a T1-weighted head, as in a T2-weighted one: "
            f"correlation {ncc:.2f} with the head template"
        )
    if ncc < LOWEST_NCC:
        raise ValueError(
            f"the scan does not resemble the head template: correlation {ncc:.2f}, below {LOWEST_NCC}"
        )
    if not SMALLEST_ML <= volume_ml <= LARGEST_ML:
        raise ValueError(f"the brain found has an impossible volume of {volume_ml:.0f} ml")
