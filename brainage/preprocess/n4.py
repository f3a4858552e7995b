"""Bias-field correction."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform

from brainage.preprocess.itk import (
    array_from_image,
    image_from_tensor,
    one_thread,
    tensor_from_image,
    tensor_like,
)

# Share of exact zeros above which they are background that was erased.
MOSTLY_ZERO = 0.3
# Around the mask. Splines reach from one end of the box to the other, so this sets how stiff they are.
MARGIN_MM = 24.0


class N4BiasCorrectiond(MapTransform, InvertibleTransform):
    """N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908) on a coarse grid, applied on the full one.

    The field is smooth, so it is estimated on voxels of about ``shrink_mm``, each the mean of those it holds,
    and interpolated between them: a 1 mm head takes 2-3 s instead of minutes. Its splines span a box around
    the mask, so that it does not depend on how much air the file holds; beyond that box it goes on as it is
    at its faces. The mask is the foreground by Otsu's threshold, or the non-zero voxels of a scan that is
    mostly exact zeros (already stripped).

    The logarithms of the fields go along under ``{key}_log_bias``, a tuple of MetaTensors (1, X, Y, Z) on
    coarse grids, the latest last; the inverse multiplies by that one and takes it off.

    Args:
        keys: images (1, X, Y, Z) to correct in place.
        shrink_mm: voxel edge, mm, at which the field is estimated.
        iterations: iterations of each fitting level; their number sets how fine the field gets.
        mask_key: fit the field in this mask instead, once the brain of a head is known: fat and muscle no
            longer steer it. Scans that came ``stripped`` pass unchanged: their first fit saw just the brain.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        shrink_mm: float = 4.0,
        iterations: tuple[int, ...] = (40, 30, 20),
        mask_key: str | None = None,
    ) -> None:
        super().__init__(keys)
        self.shrink_mm, self.iterations, self.mask_key = shrink_mm, iterations, mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        if self.mask_key and out["stripped"]:
            return out
        for key in self.key_iterator(out):
            image = image_from_tensor(out[key])
            mask = image_from_tensor(out[self.mask_key]) if self.mask_key else None
            log_field = self.log_bias_field(image, mask)
            corrected = array_from_image(image) / np.exp(_spread(log_field, image))
            out[key] = tensor_like(corrected.astype(np.float32, copy=False), out[key])
            kept = tensor_from_image(log_field)
            out[f"{key}_log_bias"] = (*out.get(f"{key}_log_bias", ()), kept)
        return out

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Undo the latest correction of each key, up to rounding."""
        out = dict(data)
        if self.mask_key and out["stripped"]:
            return out
        for key in self.key_iterator(out):
            image = image_from_tensor(out[key])
            *earlier, latest = out[f"{key}_log_bias"]
            biased = array_from_image(image) * np.exp(_spread(image_from_tensor(latest), image))
            out[key] = tensor_like(biased.astype(np.float32), out[key])
            out[f"{key}_log_bias"] = tuple(earlier)
        return out

    def log_bias_field(self, image: sitk.Image, mask: sitk.Image | None = None) -> sitk.Image:
        """Logarithm of the field that multiplies ``image``, on a coarse grid; fitted in ``mask`` if given."""
        factors = [max(1, round(self.shrink_mm / size)) for size in image.GetSpacing()]
        coarse = sitk.BinShrink(image, factors)
        if mask is None and np.mean(sitk.GetArrayViewFromImage(image) == 0) > MOSTLY_ZERO:
            mask = image > 0
        chosen = sitk.OtsuThreshold(coarse, 0, 1, 200) if mask is None else _whole(mask, factors)
        coarse, chosen = _box_around(coarse, chosen)
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.SetMaximumNumberOfIterations(self.iterations)
        # N4 works on logarithms: shift non-positive intensities out of the way.
        values = sitk.GetArrayViewFromImage(coarse)
        lowest = float(values.min())
        shifted = coarse - lowest + 1e-3 * (float(values.max()) - lowest)
        with one_thread():
            n4.Execute(shifted, chosen)
        # Not evaluated on the full grid at once: that would stretch the splines from corner to corner of it.
        return n4.GetLogBiasFieldAsImage(coarse)


def _spread(log_field: sitk.Image, image: sitk.Image) -> np.ndarray:
    """A coarse field on the grid of an image, (X, Y, Z); beyond its own box as at its faces."""
    resample = sitk.ResampleImageFilter()
    resample.SetReferenceImage(image)
    resample.SetUseNearestNeighborExtrapolator(True)
    return array_from_image(resample.Execute(log_field))


def _whole(mask: sitk.Image, factors: list[int]) -> sitk.Image:
    """The coarse voxels that lie wholly in a mask; those that lie in it by half if there are none."""
    share = sitk.BinShrink(sitk.Cast(mask, sitk.sitkFloat32), factors)
    whole = share > 0.99
    return whole if sitk.GetArrayViewFromImage(whole).any() else share >= 0.5


def _box_around(image: sitk.Image, mask: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
    """Both on the box of the mask and ``MARGIN_MM`` more on each side; zeros where the file ends before."""
    found = np.argwhere(array_from_image(mask))
    if not len(found):
        return image, mask
    margin = np.rint(MARGIN_MM / np.array(image.GetSpacing())).astype(int)
    low, high = found.min(0) - margin, found.max(0) + 1 + margin
    before, after = np.maximum(-low, 0).tolist(), np.maximum(high - image.GetSize(), 0).tolist()
    box = (high - low).tolist(), (low + before).tolist()
    image, mask = (
        sitk.RegionOfInterest(sitk.ConstantPad(each, before, after), *box) for each in (image, mask)
    )
    return image, mask
