"""Where a file's voxels lie in the world, and whether that can be true of a head."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError, SpatialImage

from brainage.data.formats import header_of
from brainage.errors import InputError

MM_PER_UNIT = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}
FINEST, COARSEST = 0.3, 6.0  # mm, voxel edges at which a T1 scan of a head is plausible
SMALLEST, LARGEST = 80.0, 600.0  # mm, field of view along an axis: a cropped brain, a head with neck
_GOOD_RAS_AT = 28  # bytes; a big-endian short in the header of MGH files
# Analyze 7.5: byte of hist.orient, and the directions in which the axes grow by its unflipped codes.
_ORIENT_AT = 252
_ANALYZE_AXES = {b"\0": "LAS", b"\1": "LSA", b"\2": "ASL"}
_RAS = np.array([[0, 1], [1, 1], [2, 1]])


def geometry_of(image: SpatialImage, shape: tuple[int, ...], path: Path) -> tuple[np.ndarray, list[str]]:
    """The (4, 4) voxel -> world RAS mm affine of a file, and warnings about it.

    Raises:
        InputError: no affine (sform and qform code 0; left and right would be a guess), a degenerate or
            heavily sheared one, or voxels or a field of view that no scan of a head has.
    """
    unit = "mm"  # of MGH and Analyze, which know no other
    if isinstance(image, nib.Nifti1Pair):
        affine, warnings = _affine(image.header, path)
        unit = _unit(image.header)
    elif isinstance(image, nib.MGHImage):
        affine, warnings = _mgh_affine(image, path), []
    else:
        affine, warnings = _analyze_affine(image, shape, path)
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


def _mgh_affine(image: nib.MGHImage, path: Path) -> np.ndarray:
    # nibabel fills in defaults on reading, so the flag is read here.
    with gzip.open(path) if path.suffix.lower() == ".mgz" else path.open("rb") as stream:
        good = int.from_bytes(stream.read(_GOOD_RAS_AT + 2)[_GOOD_RAS_AT:], "big", signed=True)
    if good <= 0:
        raise InputError(
            path,
            "no orientation (goodRASFlag 0), so left and right cannot be told",
            "an MGH file with orientation",
            "convert the scan again with mri_convert",
        )
    return _usable(image.affine, path)


def _analyze_affine(image: SpatialImage, shape: tuple[int, ...], path: Path) -> tuple[np.ndarray, list[str]]:
    """Of SPM's .mat file where there is one; else axes by the header's orient code, which few writers set."""
    if header_of(path).with_suffix(".mat").is_file():
        return _usable(image.affine, path), []
    code = header_of(path).read_bytes()[_ORIENT_AT : _ORIENT_AT + 1]
    axes = _ANALYZE_AXES.get(code)
    if axes is None:
        raise InputError(
            path,
            f"the flipped or unknown Analyze orientation code {code[0] if code else 0}",
            f"code {', '.join(str(key[0]) for key in _ANALYZE_AXES)}",
            "convert the scan to NIfTI from its source",
        )
    sizes = np.abs(cast(Any, image.header)["pixdim"][1:4].astype(np.float64))
    affine = np.zeros((4, 4))
    for column, (letter, size) in enumerate(zip(axes, sizes, strict=True)):
        row = next(row for row, pair in enumerate(("LR", "PA", "IS")) if letter in pair)
        affine[row, column] = -size if letter in "LPI" else size
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    affine[3, 3] = 1
    said = f"Analyze stores no orientation, so its axes were taken as {axes}; left and right may be swapped"
    return _usable(affine, path), [said]


def _usable(affine: np.ndarray, path: Path) -> np.ndarray:
    matrix = np.asarray(affine, dtype=np.float64)
    if not _is_usable(matrix):
        raise InputError(
            path,
            "a degenerate affine",
            "three perpendicular axes of some millimetres",
            "convert the scan again from its source",
        )
    return matrix


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
