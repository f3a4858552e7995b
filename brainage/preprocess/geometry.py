"""Where a file's voxels lie in the world, and whether that can be true of a head."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError

from brainage.errors import InputError

MM_PER_UNIT = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}
FINEST, COARSEST = 0.3, 6.0  # mm, voxel edges at which a T1 scan of a head is plausible
SMALLEST, LARGEST = 80.0, 600.0  # mm, field of view along an axis: a cropped brain, a head with neck
_RAS = np.array([[0, 1], [1, 1], [2, 1]])


def geometry_of(image: nib.Nifti1Image, shape: tuple[int, ...], path: Path) -> tuple[np.ndarray, list[str]]:
    """The (4, 4) voxel -> world RAS mm affine of a file, and warnings about it.

    Raises:
        InputError: no affine (sform and qform code 0; left and right would be a guess), a degenerate or
            heavily sheared one, or voxels or a field of view that no scan of a head has.
    """
    affine, warnings = _affine(image.header, path)
    unit = _unit(image.header)
    affine = affine.copy()
    affine[:3] *= MM_PER_UNIT.get(unit, 1.0)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    text = " x ".join(f"{size:.3g}" for size in sizes)
    if np.any((sizes < FINEST) | (sizes > COARSEST)):
        stated = f"in {unit}" if unit in MM_PER_UNIT else "in unknown units"
        raise InputError(
            path,
            f"voxels of {text} mm ({stated})",
            f"{FINEST:g} to {COARSEST:g} mm",
            "correct the header's voxel sizes or units, or resample the scan",
        )
    extent = sizes * shape
    if np.any((extent < SMALLEST) | (extent > LARGEST)):
        wide = " x ".join(f"{size:.0f}" for size in extent)
        raise InputError(
            path,
            f"a field of view of {wide} mm",
            f"a whole brain ({SMALLEST:.0f} to {LARGEST:.0f} mm)",
            "give a scan of the whole head, or correct the header",
        )
    if unit not in MM_PER_UNIT:
        warnings.append(f"units unknown, so voxels of {text} were taken as millimetres")
    return affine, warnings


def to_canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An (X, Y, Z) array and its affine with axes permuted and flipped to the closest RAS."""
    orientation = io_orientation(affine)
    return apply_orientation(array, orientation), affine @ inv_ornt_aff(orientation, array.shape)


def to_original(canonical: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Inverse of :func:`to_canonical` for an array; ``affine`` is the original one."""
    return np.ascontiguousarray(apply_orientation(canonical, ornt_transform(_RAS, io_orientation(affine))))


def _affine(header: nib.Nifti1Header, path: Path) -> tuple[np.ndarray, list[str]]:
    sform = header.get_sform() if int(header["sform_code"]) > 0 else None
    qform = None
    broken = False
    if int(header["qform_code"]) > 0:
        try:
            qform = header.get_qform()
        except (HeaderDataError, ValueError):  # ValueError: the quaternion is longer than 1
            broken = True
    if sform is None and qform is None and not broken:
        raise InputError(
            path,
            "no affine (sform and qform code 0), so left and right cannot be told",
            "a NIfTI affine",
            "convert the scan again with dcm2niix, which stores it",
        )
    usable = [matrix for matrix in (sform, qform) if matrix is not None and _is_usable(matrix)]
    if not usable:
        raise InputError(
            path,
            "a degenerate affine",
            "three perpendicular axes of some millimetres",
            "convert the scan again with dcm2niix",
        )
    warnings = []
    if broken or len(usable) < (sform is not None) + (qform is not None):
        warnings.append("one of the two affines is degenerate, so the other one was used")
    elif len(usable) == 2 and not _agree(*usable):
        warnings.append("sform and qform disagree, so the sform was used")
    return usable[0], warnings


def _is_usable(matrix: np.ndarray) -> bool:
    if not np.isfinite(matrix).all():
        return False
    sizes = np.linalg.norm(matrix[:3, :3], axis=0)
    # The determinant of the unit axes is 1 when they are perpendicular; half of that is no scanner's.
    return bool(np.all(sizes > 0)) and abs(np.linalg.det(matrix[:3, :3] / sizes)) > 0.5


def _agree(one: np.ndarray, other: np.ndarray) -> bool:
    """Same axes within a tenth of their length; offsets may differ, since registration absorbs them."""
    sizes = np.linalg.norm(one[:3, :3], axis=0)
    return bool(np.all(np.linalg.norm(one[:3, :3] - other[:3, :3], axis=0) < 0.1 * sizes))


def _unit(header: nib.Nifti1Header) -> str:
    try:
        return str(header.get_xyzt_units()[0])
    except KeyError:
        return "unknown"
