"""Loading a T1 scan, so that what follows can rely on it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform

from brainage.data.formats_reading import MOST_VOXELS, open_image, read_values
from brainage.errors import InputError
from brainage.preprocess.geometry import geometry_of, to_canonical
from brainage.preprocess.itk import packed

MOST_NOT_FINITE = 0.01  # share of voxels; more than a few at a border means that something went wrong
FEWEST_LEVELS = 12  # of intensity; label maps and masks have fewer
TOP = 1000.0  # intensity that the 99.9th percentile is scaled to
HOTTEST = 5.0  # times the 99.9th percentile; above it lie spikes, not tissue


class LoadScand(MapTransform):
    """Replaces a path by the scan: (1, X, Y, Z) float32, axes reordered and flipped to RAS, not resampled.

    Intensities (``scl_slope`` applied) are scaled by one factor, so that later steps see the same range
    from every file, and made non-negative. Adds ``native_shape`` and ``native_affine`` (voxel -> world
    RAS mm, of the file's own grid) and ``warnings``, a tuple of clauses.

    Raises:
        InputError: the file cannot be used; see :func:`read_scan`.
    """

    def __init__(self, keys: KeysCollection = "image") -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            array, affine, warnings = read_scan(Path(out[key]))
            canonical, canonical_affine = to_canonical(array, affine)
            tensor = torch.from_numpy(packed(canonical))[None]
            out[key] = MetaTensor(tensor, affine=torch.from_numpy(canonical_affine))
            out["native_shape"], out["native_affine"] = array.shape, affine
            out["warnings"] = (*out.get("warnings", ()), *warnings)
        return out


def read_scan(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A usable T1 scan.

    Returns:
        Intensities (X, Y, Z) float32 >= 0; voxel -> world RAS mm (4, 4); warnings.

    Raises:
        InputError: missing, damaged, of no accepted format, not three-dimensional, colour or complex
            values, values that are not finite, no contrast, or no trustworthy geometry (see ``geometry_of``).
    """
    image = open_image(path)
    shape = tuple(int(size) for size in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        text = " x ".join(map(str, shape))
        raise InputError(
            path, f"a {len(shape)}-D image ({text})", "one 3-D volume", "extract the T1-weighted volume first"
        )
    if not 0 < math.prod(shape) <= MOST_VOXELS:
        text = " x ".join(map(str, shape))
        raise InputError(
            path, f"{text} voxels", "a head at 0.3 to 6 mm", "check the header, or resample the scan"
        )
    kind = image.get_data_dtype()
    if kind.fields is not None or kind.kind not in "fiub":
        what = "complex numbers" if kind.kind == "c" else "colours (RGB)"
        raise InputError(path, what, "one real number a voxel", "give the T1-weighted magnitude image")
    affine, warnings = geometry_of(image, shape, path)
    array = read_values(image, shape, path)
    array, more = _usable_intensities(array, path)
    return array, affine, [*warnings, *more]


def _usable_intensities(array: np.ndarray, path: Path) -> tuple[np.ndarray, list[str]]:
    warnings = []
    finite = np.isfinite(array)
    bad = array.size - int(np.count_nonzero(finite))
    if bad > MOST_NOT_FINITE * array.size:
        raise InputError(
            path,
            f"{bad / array.size:.0%} of the voxels NaN or infinite",
            "finite intensities",
            "convert the scan again",
        )
    if bad:
        warnings.append(f"{bad} voxels were NaN or infinite and count as 0")
        array = np.where(finite, array, np.float32(0))
    low, high = float(array.min()), float(array.max())
    if low == high:
        raise InputError(
            path, f"the value {low:g} in every voxel", "a scan with contrast", "export the scan again"
        )
    # In the order of memory: numbers are picked out of it several times as fast.
    flat = array.ravel(order="K")
    sample = flat[flat != 0]
    levels = np.unique(sample[:: max(1, sample.size // 50_000)]).size
    if levels < FEWEST_LEVELS:
        raise InputError(
            path,
            f"only {levels} different values",
            "intensities of a T1-weighted scan",
            "give the scan itself, not a mask or label map",
        )
    if low < 0 and np.mean(array < 0) > 0.01:
        # Standardised scans: what was 0 is background when it is common, and the brain lies on both sides.
        floor = float(np.percentile(array[array < 0], 0.5))
        background = (array == 0) if np.mean(array == 0) > 0.2 else (array <= floor)
        array = np.where(background, np.float32(0), array - np.float32(floor))
        warnings.append("negative intensities, so all were shifted")
    array = np.maximum(array, np.float32(0))
    if low < 0:
        flat = array.ravel(order="K")
        sample = flat[flat > 0]
    top = float(np.percentile(sample, 99.9, overwrite_input=True)) if sample.size else 0.0
    # The smallest normal number: below it the factor that scales by it overflows.
    if top < np.finfo(np.float32).tiny * TOP:
        raise InputError(
            path, "no intensity above the background", "a scan with contrast", "export the scan again"
        )
    # A single hot voxel would fill the histograms of everything that follows.
    array = np.minimum(array, np.float32(HOTTEST * top))
    return (array * np.float32(TOP / top)).astype(np.float32, copy=False), warnings
