"""The voxels that the viewer of a page shows, small enough to travel inside it.

Scan and maps are brought to one grid of ``SPACING`` mm along the scan's own axes, cropped to the brain and
stored as 8 or 16 bit integers, compressed. NiiVue itself comes from nilearn's wheel when the page is written.
"""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import nilearn
import numpy as np
from scipy import ndimage

from brainage.errors import InputError
from brainage.report.scan_files import ScanImages

SPACING = 1.5  # mm
_MARGIN = 12.0  # mm around the maps
_STEPS = 2000  # contributions are kept in steps of a 2000th of the largest


@dataclass(frozen=True)
class ViewerData:
    """Volumes of one scan as base64 of gzipped NIfTI files, all on the same grid.

    Attributes:
        volumes: ``scan``, ``contribution``, ``expert`` and, where the atlas was written, ``regions``.
        limit: contribution in years at which the colours end.
    """

    volumes: dict[str, str]
    limit: float


@lru_cache(maxsize=1)
def niivue_base64() -> str:
    """NiiVue as gzipped JavaScript in base64.

    Raises:
        InputError: nilearn's wheel no longer carries it.
    """
    script = Path(nilearn.__file__).parent / "_assets" / "js" / "niivue.umd.js"
    if not script.is_file():
        raise InputError(
            script,
            "no such file in nilearn",
            "the viewer that nilearn 0.13 and later carry",
            "install nilearn again",
        )
    return base64.b64encode(gzip.compress(script.read_bytes(), 9, mtime=0)).decode("ascii")


def viewer_data(images: ScanImages) -> ViewerData:
    """Bring a scan and its maps to the viewer's grid.

    Raises:
        InputError: a file is missing or does not lie on the scan's grid.
    """
    t1 = nib.as_closest_canonical(images.t1())
    years = nib.as_closest_canonical(images.map("contribution"))
    zooms = np.array(t1.header.get_zooms()[:3], dtype=float)
    shown = np.isfinite(np.asarray(years.dataobj))
    if not shown.any():
        raise InputError(
            images.path_of("contribution"), "no value", "a map of contributions", "predict again"
        )
    affine, shape = _view_grid(t1.affine, zooms, shown)
    scan = np.nan_to_num(np.asarray(t1.dataobj, dtype=np.float32))
    # Averages over what the coarser grid would skip.
    blur = np.where(zooms < SPACING, 0.4 * (SPACING / zooms - 1), 0)
    scan = ndimage.gaussian_filter(scan, blur) if blur.any() else scan
    scan = _sample(scan, t1.affine, affine, shape, order=1)
    bright = scan[scan > 0.2 * scan.mean()]
    top = float(np.percentile(bright, 99.5)) if bright.size else 1.0
    grey = np.clip(255 * scan / max(top, 1e-6), 0, 255).astype(np.uint8)
    values = np.asarray(years.dataobj, dtype=np.float32)
    inside = images.mask()
    if inside is not None:
        values = np.where(np.asarray(nib.as_closest_canonical(inside).dataobj) > 0, values, np.nan)
    magnitude = np.abs(values[np.isfinite(values)])
    limit = max(float(np.percentile(magnitude, 99)) if magnitude.size else 0.0, 1e-3)
    step = max(float(magnitude.max()) if magnitude.size else 0.0, limit) / _STEPS
    years_view = np.rint(np.nan_to_num(_sample(values, years.affine, affine, shape, order=0)) / step)
    volumes = {
        "scan": _encode(grey, affine),
        "contribution": _encode(years_view.astype(np.int16), affine, step),
    }
    held = np.isfinite(values)
    for name, image in (("expert", images.map("expert")), ("regions", images.regions())):
        if image is not None:
            canonical = nib.as_closest_canonical(image)
            labels = np.where(held, np.nan_to_num(np.asarray(canonical.dataobj, dtype=np.float32)), 0)
            view = _sample(labels, canonical.affine, affine, shape, order=0)
            volumes[name] = _encode(view.astype(np.uint8), affine)
    return ViewerData(volumes, limit)


def _view_grid(
    affine: np.ndarray, zooms: np.ndarray, shown: np.ndarray
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine and shape of the grid that holds the maps with a margin, along the axes of ``affine``."""
    where = np.argwhere(shown)
    low = np.maximum(where.min(0) - _MARGIN / zooms, 0)
    high = np.minimum(where.max(0) + _MARGIN / zooms, np.array(shown.shape) - 1)
    shape = tuple(int(n) for n in np.ceil((high - low) * zooms / SPACING).astype(int) + 1)
    scale = np.diag([*(SPACING / zooms), 1.0])
    scale[:3, 3] = low
    return affine @ scale, shape


def _sample(
    data: np.ndarray, affine: np.ndarray, to_affine: np.ndarray, shape: tuple[int, ...], order: int
) -> np.ndarray:
    matrix = np.linalg.inv(affine) @ to_affine
    # The axes are the same, so that a scale and an offset for each are all there is to it.
    return ndimage.affine_transform(
        data, np.diag(matrix)[:3].copy(), matrix[:3, 3], output_shape=shape, order=order, mode="nearest"
    )


def _encode(data: np.ndarray, affine: np.ndarray, slope: float = 1.0) -> str:
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    raw = bytearray(image.to_bytes())
    # nibabel would divide the data by a slope that the header had before; they are stored integers already.
    raw[112:116] = np.array(slope, image.header["scl_slope"].dtype).tobytes()
    return base64.b64encode(gzip.compress(bytes(raw), 9, mtime=0)).decode("ascii")
