"""Maps of tokens, and their way to the model grid and to the scan's own space.

N is the number of tokens given, (X, Y, Z) a grid. Images are float32 with NaN where there is no token.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
from scipy import ndimage

from brainage.anatomy.grid import MODEL_GRID
from brainage.errors import ConfigError


def tokens_to_image(values_N: np.ndarray, token_index_N: np.ndarray, patch: int) -> nib.Nifti1Image:
    """Values of tokens as an image of one voxel a token.

    Args:
        values_N: one number a token; labels are kept as floats.
        token_index_N: places in the token grid, C order (T = 10 * 12 * 10 for patches of 8).
        patch: edge of a patch in voxels of the model grid.

    Returns:
        (X, Y, Z) on the token grid, whose affine puts a voxel at the centre of its patch.
    """
    grid = MODEL_GRID.coarsen(patch)
    values_N, token_index_N = np.asarray(values_N), np.asarray(token_index_N)
    if values_N.shape != token_index_N.shape or values_N.ndim != 1:
        raise ConfigError(
            "values_N", values_N.shape, f"must have the shape of token_index_N, {token_index_N.shape}"
        )
    data = np.full(int(np.prod(grid.shape)), np.nan, np.float32)
    data[token_index_N] = values_N
    return _image(data.reshape(grid.shape), grid.affine, "mni")


def to_model_grid(image: nib.Nifti1Image, order: int = 0) -> nib.Nifti1Image:
    """A map in MNI space on the model grid, (80, 96, 80) at 2 mm.

    Args:
        image: map whose world is MNI.
        order: 0 nearest (labels), 1 linear.
    """
    return _image(_sample(image, MODEL_GRID.affine, MODEL_GRID.shape, order), MODEL_GRID.affine, "mni")


def to_native(
    image: nib.Nifti1Image,
    native_to_mni: np.ndarray,
    native_shape: tuple[int, ...],
    native_affine: np.ndarray,
    order: int = 0,
) -> nib.Nifti1Image:
    """A map in MNI space on the grid of the scan that it came from.

    Args:
        image: map whose world is MNI, on any grid.
        native_to_mni: (4, 4) world RAS mm of the scan -> world RAS mm of MNI.
        native_shape: (X, Y, Z) of the scan.
        native_affine: (4, 4) voxel index of the scan -> its world RAS mm.
        order: 0 nearest (labels), 1 linear.
    """
    to_mni = np.asarray(native_to_mni, dtype=float) @ np.asarray(native_affine, dtype=float)
    return _image(_sample(image, to_mni, native_shape, order), native_affine, "scanner")


def _sample(image: nib.Nifti1Image, to_world: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    """Values of ``image`` at the voxels of a grid whose indices ``to_world`` takes to the image's world.

    Linear: the mean of the neighbours that hold a value, as far as the nearest of them reaches.
    """
    if order not in (0, 1):
        raise ConfigError("order", order, "must be 0 (nearest) or 1 (linear)")
    data = np.asarray(image.dataobj, dtype=np.float32)
    matrix = np.linalg.inv(image.affine) @ to_world
    held = np.isfinite(data)

    def pull(values: np.ndarray, order: int, outside: float = 0.0) -> np.ndarray:
        # "grid-constant" keeps the outer half of the voxels at the rim, which "constant" would drop.
        return ndimage.affine_transform(
            values, matrix, output_shape=shape[:3], order=order, mode="grid-constant", cval=outside
        )

    nearest = pull(np.where(held, data, np.nan), 0, np.nan)
    if order == 0:
        return nearest
    weight = pull(held.astype(np.float32), 1)
    mean = pull(np.where(held, data, 0), 1) / np.maximum(weight, 1e-6)
    return np.where(np.isfinite(nearest), mean, np.nan).astype(np.float32)


def _image(data: np.ndarray, affine: np.ndarray, code: str) -> nib.Nifti1Image:
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code=code)
    image.header.set_xyzt_units("mm")
    return image
