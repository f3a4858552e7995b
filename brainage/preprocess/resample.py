"""From the scan's own grid to the model grid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import InvertibleTransform

from brainage.anatomy.grid import MODEL_GRID
from brainage.preprocess.itk import (
    array_from_image,
    image_from_tensor,
    in_parallel,
    model_grid_image,
    tensor_like,
    transform_of,
)


class ResampleToModelGridd(InvertibleTransform):
    """Adds ``volume``: the brain alone, (1, 80, 96, 80), 2 mm, RAS, MNI152NLin2009aSym.

    One linear interpolation from the scan as stored: resampling and cropping are the same step. Finer
    scans are smoothed first to the model grid's resolution (sigma 0.4 voxel), so that 1 mm and 2 mm scans
    of a brain look alike. The mask goes along as the share of brain in each voxel.

    The inverse brings ``volume``, which may be any map on the model grid, onto the grid of ``image``: linear
    interpolation, 0 beyond the model grid. Up to that interpolation it undoes the resampling.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        mask = sitk.Cast(image_from_tensor(out["brain_mask"]), sitk.sitkFloat32)
        brain = sitk.Cast(image_from_tensor(out["image"]) * mask, sitk.sitkFloat32)
        to_native = transform_of(np.linalg.inv(out["native_to_mni"]))
        reference = model_grid_image()

        def moved(image: sitk.Image) -> np.ndarray:
            return array_from_image(sitk.Resample(_antialiased(image), reference, to_native, sitk.sitkLinear))

        volume, share = in_parallel(moved, (brain, mask))
        volume = np.where(share > 0.5, volume / np.maximum(share, 0.5), 0.0).astype(np.float32)
        out["volume"] = MetaTensor(torch.from_numpy(volume)[None], affine=torch.from_numpy(MODEL_GRID.affine))
        return out

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """See the class; ``volume`` becomes (1, X, Y, Z) on the grid of ``image``."""
        out = dict(data)
        native = image_from_tensor(out["image"])
        to_mni = transform_of(out["native_to_mni"])
        moved = sitk.Resample(image_from_tensor(out["volume"]), native, to_mni, sitk.sitkLinear)
        out["volume"] = tensor_like(array_from_image(moved), out["image"])
        return out


def _antialiased(image: sitk.Image) -> sitk.Image:
    """Gaussian blur along the axes whose voxels are finer than the model grid's."""
    sigmas = [0.4 * max(0.0, MODEL_GRID.spacing**2 - size**2) ** 0.5 for size in image.GetSpacing()]
    for axis, sigma in enumerate(sigmas):
        if sigma > 0.05:
            image = sitk.RecursiveGaussian(image, sigma=sigma, direction=axis)
    return image
