"""The volume of a DICOM series: whole, evenly spaced, and placed as its slices say."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import nibabel as nib
import numpy as np

from brainage.data.dicom import FEWEST_SLICES, Series, Slice, choose_series, frames_of
from brainage.errors import InputError

_SAME = 0.01  # mm and direction cosines; slices of a series agree in far less
_UNEVEN = 0.1  # of the distance between slices


def open_series(path: str | PathLike[str]) -> nib.Nifti1Image:
    """The volume of a T1 series: intensities (columns, rows, slices) with rescaling applied, RAS mm affine.

    Raises:
        InputError: as ``choose_series``; or slices that are missing, doubled, unequal or not parallel.
    """
    import SimpleITK as sitk

    path = Path(path)
    series = choose_series(path)
    affine = _affine_of(series, path)
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(file) for file in series.paths])
    try:
        array = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise InputError(path, "damaged DICOM files", "a whole series", "export the series again") from error
    image = nib.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0), dtype=np.float32), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    return image


def _affine_of(series: Series, path: Path) -> np.ndarray:
    """(4, 4) voxel (column, row, slice) -> world RAS mm, from the slices' positions (DICOM PS3.3 C.7.6.2)."""
    slices = series.slices
    _refuse_odd_slices(slices, series.title, path)
    cosines, sizes = slices[0].numbers("orientation"), slices[0].numbers("spacing")
    positions = np.array([item.numbers("position") for item in slices])
    normal = np.cross(cosines[:3], cosines[3:])
    steps = np.diff(positions @ normal)
    usual = float(np.median(steps))
    if usual < _SAME or (steps < _SAME).any():
        twice = int((steps < _SAME).sum())
        raise InputError(
            path,
            f"{series.title} with {twice} slices at the place of another",
            "one slice at each place",
            "give one acquisition, without echoes or repetitions of it",
        )
    gaps = np.rint(steps / usual).astype(int) - 1
    if gaps.any():
        place = int(np.argmax(gaps > 0)) + 1
        raise InputError(
            path,
            f"{series.title} with {int(gaps.sum())} slices missing, the first after slice {place}",
            "a whole series",
            "export it again",
        )
    promised = slices[0].numbers("promised")
    if promised.size == 1 and 1 < len(slices) < promised[0] and promised[0] % len(slices):
        raise InputError(
            path,
            f"{series.title} of an acquisition of {promised[0]:.0f}",
            "a whole series",
            "export it again",
        )
    drift = positions - positions[0] - np.outer((positions - positions[0]) @ normal, normal)
    if np.abs(steps - usual).max() > _UNEVEN * usual or np.abs(drift).max() > _UNEVEN * usual:
        raise InputError(
            path,
            f"{series.title} with slices at unequal distances or aslant",
            "a stack of parallel slices",
            "convert it with dcm2niix, which can resample it",
        )
    affine = np.eye(4)
    # Pixel spacing is that of rows, then of columns; the first cosines point along a row.
    affine[:3, 0] = cosines[:3] * sizes[1]
    affine[:3, 1] = cosines[3:] * sizes[0]
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(slices) - 1)
    affine[:3, 3] = positions[0]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _refuse_odd_slices(slices: Sequence[Slice], title: str, path: Path) -> None:
    if any(frames_of(item) > 1 for item in slices):
        raise InputError(
            path, f"{title} as enhanced (multi-frame) DICOM", "one slice a file", "convert it with dcm2niix"
        )
    if any(item.facts["samples"] not in ("", "1") for item in slices):
        raise InputError(path, f"{title} in colour", "grey values", "give the T1-weighted series itself")
    if len(slices) < FEWEST_SLICES:
        raise InputError(
            path, f"only {len(slices)} slices of {title}", "a whole head", "export the whole series"
        )
    for name, size in (("orientation", 6), ("position", 3), ("spacing", 2), ("rows", 1), ("columns", 1)):
        values = [item.numbers(name) for item in slices]
        if any(value.size != size or not np.isfinite(value).all() for value in values):
            raise InputError(
                path, f"{title} with slices without {name}", "DICOM images of a scanner", "export it again"
            )
        if name != "position" and np.ptp(np.array(values), axis=0).max() > _SAME:
            raise InputError(
                path, f"{title} with slices that differ in {name}", "one stack of slices", "export it again"
            )
