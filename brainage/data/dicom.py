"""The T1-weighted series among DICOM files. Nothing that names a person is read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np

from brainage.data.cohort import Scan
from brainage.data.formats import is_dicom
from brainage.errors import InputError

# Attributes by tag (DICOM PS3.6). The patient's name, number and birth date are not among them.
_TAGS = {
    "modality": "0008|0060",
    "description": "0008|103e",
    "protocol": "0018|1030",
    "image_type": "0008|0008",
    "repetition": "0018|0080",
    "echo": "0018|0081",
    "acquisition": "0018|0023",
    "study": "0020|000d",
    "series": "0020|000e",
    "position": "0020|0032",
    "orientation": "0020|0037",
    "spacing": "0028|0030",
    "rows": "0028|0010",
    "columns": "0028|0011",
    "frames": "0028|0008",
    "samples": "0028|0002",
    "promised": "0020|1002",
}
_T1 = re.compile(r"t1|mp-?rage|mp2rage|spgr|bravo|flash.?3d|3d.?flash|3d.?tfe|tfl3d|tfe", re.I)
_NOT_T1 = re.compile(
    r"t2|flair|dwi|diff|dti|adc|trace|bold|fmri|\basl|perf|swi|\bpd|tof|angio|local|scout|survey|"
    r"field|gre_?map|phase|mask|segment|mip",
    re.I,
)
_DERIVED = re.compile(r"localizer|mpr\b|projection|mip|phase|derived\\secondary", re.I)
FEWEST_SLICES = 20
LONGEST_T1_ECHO, LONGEST_T1_REPETITION = 12.0, 3500.0  # ms, of 3-D gradient-echo T1 sequences


@dataclass(frozen=True, eq=False)
class Slice:
    """One DICOM file and its attributes; ``position`` is LPS mm."""

    path: Path
    facts: Mapping[str, str]

    def numbers(self, name: str) -> np.ndarray:
        """The numbers of an attribute; empty where it is missing or no number."""
        try:
            return np.array([float(part) for part in self.facts.get(name, "").split("\\") if part.strip()])
        except ValueError:
            return np.array([])


@dataclass(frozen=True, eq=False)
class Series:
    """Slices of one series, in order along the normal of their plane.

    Attributes:
        slices: sorted by position.
    """

    slices: tuple[Slice, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(item.path for item in self.slices)

    @property
    def first(self) -> Mapping[str, str]:
        return self.slices[0].facts

    @cached_property
    def title(self) -> str:
        """``'t1_mprage' (192 slices)``."""
        name = self.first["description"] or self.first["protocol"] or "no description"
        return f"'{name}' ({len(self.slices)} slices)"

    @cached_property
    def study_hash(self) -> str:
        """Eight hexadecimal digits of the study's identifier, which itself may lead to a person."""
        return hashlib.sha256((self.first["study"] or self.first["series"]).encode()).hexdigest()[:8]

    def looks_t1(self) -> bool:
        """Whether its names say T1."""
        text = f"{self.first['description']} {self.first['protocol']}"
        return bool(_T1.search(text)) and not _NOT_T1.search(re.sub(r"t1[ _-]?flair", "t1", text, flags=re.I))

    def may_be_t1(self) -> bool:
        """Whether it may be one by its kind: magnetic resonance, original, a stack of slices."""
        modality = self.first["modality"]
        stack = len(self.slices) >= FEWEST_SLICES or frames_of(self.slices[0]) >= FEWEST_SLICES
        return modality in ("MR", "") and stack and not _DERIVED.search(self.first["image_type"])

    def timed_as_t1(self) -> bool:
        """Whether it is three-dimensional with the short echo of a T1-weighted sequence."""
        echo, repetition = self.slices[0].numbers("echo"), self.slices[0].numbers("repetition")
        if self.first["acquisition"] != "3D" or echo.size != 1 or repetition.size != 1:
            return False
        text = f"{self.first['description']} {self.first['protocol']}"
        short = 0 < echo[0] <= LONGEST_T1_ECHO and 0 < repetition[0] <= LONGEST_T1_REPETITION
        return bool(short) and not _NOT_T1.search(text)


def find_series(folder: str | PathLike[str]) -> list[Series]:
    """The series among the DICOM files of one folder (not of its subfolders), by description.

    Raises:
        InputError: no readable DICOM file.
    """
    folder = Path(folder)
    groups: dict[str, list[Slice]] = {}
    for path in sorted(folder.iterdir()):
        if is_dicom(path) and (found := _read_facts(path)) is not None:
            groups.setdefault(found.facts["series"], []).append(found)
    if not groups:
        raise InputError(folder, "no readable DICOM image", "a DICOM series", "export the series again")
    series = [Series(tuple(sorted(slices, key=_along_normal))) for slices in groups.values()]
    return sorted(series, key=lambda one: (one.first["description"], one.first["series"]))


def choose_series(path: str | PathLike[str]) -> Series:
    """The T1-weighted series of a folder, or the series that a file belongs to.

    Raises:
        InputError: none or several may be meant; the sentence lists what was found.
    """
    path = Path(path)
    if path.is_file():
        wanted = _read_facts(path)
        if wanted is None:
            raise InputError(path, "no readable DICOM image", "a DICOM file", "export the series again")
        return next(one for one in find_series(path.parent) if one.first["series"] == wanted.facts["series"])
    every = find_series(path)
    usable = [one for one in every if one.may_be_t1()]
    chosen = [one for one in usable if one.looks_t1()] or [one for one in usable if one.timed_as_t1()]
    if len(chosen) == 1:
        return chosen[0]
    listed = "; ".join(one.title for one in (chosen or every))
    many = "several T1-weighted series" if chosen else "no series that is T1-weighted by name or timing"
    raise InputError(
        path, f"{many}: {listed}", "one T1-weighted series", "give one file of the right series instead"
    )


def dicom_scan(path: Path) -> Scan:
    """The scan of a DICOM folder, or of the series of a file.

    Its id is made of the series' identifier, never of a name, unless it lies in folders ``sub-*/ses-*``.
    The series is not chosen here, so that a folder which cannot be used costs only its own row.
    """
    labels = {}
    for part in path.absolute().parts:
        if match := re.fullmatch(r"(sub|ses)-([a-zA-Z0-9]+)", part):
            labels[match[1]] = match[2]
    if "sub" not in labels:
        series = find_series(path if path.is_dir() else path.parent)
        labels = {"sub": f"dicom{series[0].study_hash}"}
    session = f"ses-{labels['ses']}" if "ses" in labels else ""
    entities = {key: labels[key] for key in ("sub", "ses") if key in labels}
    return Scan(path, f"sub-{labels['sub']}", session, entities)


def _read_facts(path: Path) -> Slice | None:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    known = set(reader.GetMetaDataKeys())
    facts = {
        name: reader.GetMetaData(tag).strip(" \0") if tag in known else "" for name, tag in _TAGS.items()
    }
    return Slice(path, facts)


def frames_of(item: Slice) -> int:
    """Images in one file; more than one in enhanced DICOM."""
    frames = item.numbers("frames")
    return int(frames[0]) if frames.size else 1


def _normal(item: Slice) -> np.ndarray | None:
    cosines = item.numbers("orientation")
    return np.cross(cosines[:3], cosines[3:]) if cosines.size == 6 else None


def _along_normal(item: Slice) -> tuple[float, str]:
    normal, position = _normal(item), item.numbers("position")
    place = float(normal @ position) if normal is not None and position.size == 3 else 0.0
    return place, item.path.name
