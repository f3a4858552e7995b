"""The brain mask of a scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.transforms import Transform
from scipy import ndimage

from brainage.preprocess.itk import tensor_like


class BrainExtractiond(Transform):
    """Adds ``brain_mask`` and ``stripped`` for a scan that is already without skull.

    Args:
        mode: ``auto``, ``always`` or ``never``.

    Raises:
        ValueError: the scan has a skull.
    """

    def __init__(self, mode: str = "auto") -> None:
        self.mode = mode

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        foreground = out["image"][0].cpu().numpy() > 0
        if self.mode == "always" or (self.mode == "auto" and foreground.mean() > 0.5):
            raise ValueError("the scan has a skull")
        labels, _ = ndimage.label(foreground)
        largest = np.bincount(labels.ravel())[1:].argmax() + 1
        mask = ndimage.binary_fill_holes(labels == largest)
        out["brain_mask"] = tensor_like(mask.astype(np.uint8), out["image"])
        out["stripped"] = True
        return out
