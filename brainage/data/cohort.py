"""Which scans a folder holds, and what their BIDS names say."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from brainage.data.formats import is_volume, stem_of
from brainage.errors import InputError

logger = logging.getLogger("brainage")

_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")
# Descriptions under which other pipelines store a stripped but otherwise unchanged scan.
_DESCRIPTIONS = ("", "brain")
_OTHER_SUFFIXES = ("T2w", "FLAIR", "PDw", "T2star", "bold", "dwi", "sbref", "epi", "mask", "dseg", "probseg")


@dataclass(frozen=True)
class Scan:
    """One T1w file.

    Attributes:
        path: of its file; of a pair the header; of DICOM the folder, or one file of the series.
        participant_id: with its prefix, ``sub-01``.
        session_id: with its prefix, or empty.
        entities: of the BIDS name in its order: ``{"sub": "01", "acq": "mprage"}``.
    """

    path: Path
    participant_id: str
    session_id: str = ""
    entities: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """A file that cannot be taken as a scan, and the sentence that says why."""

    path: Path
    message: str


def find_scans(bids_dir: str | PathLike[str]) -> tuple[list[Scan], list[Problem]]:
    """Every T1w scan in ``sub-*/[ses-*/]anat/`` of a BIDS folder, raw or stripped (``desc-brain``).

    Returns:
        Scans, sorted by path, and files whose names are unusable: with odd characters, of another
        subject than their folder, or of the same name as another file but for the ending.

    Raises:
        InputError: no folder, or no T1w scan in it.
    """
    folder = Path(bids_dir)
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "a BIDS folder", "check the path")
    paths = {*folder.glob("sub-*/anat/*T1w.*"), *folder.glob("sub-*/ses-*/anat/*T1w.*")}
    paths = {path for path in paths if is_volume(path)}
    scans: list[Scan] = []
    problems: list[Problem] = []
    seen: dict[str, Path] = {}
    # The compressed file of a pair comes first, so that it is the one that is used.
    for path in sorted(paths, key=lambda path: (path.parent, stem_of(path), -len(path.name))):
        try:
            scan = _bids_scan(path)
            _check_folders(scan, folder)
        except InputError as error:
            problems.append(Problem(path, str(error)))
            continue
        if scan.entities.get("desc", "") not in _DESCRIPTIONS:
            logger.debug("%s: left out, a derivative that is no plain scan", path.name)
            continue
        name = output_entities(scan.entities)
        if name in seen:
            clash = InputError(
                path,
                f"the same entities as {seen[name].name}",
                "one file for each scan",
                "remove or rename one of them; the other one was used",
            )
            problems.append(Problem(path, str(clash)))
            continue
        seen[name] = path
        scans.append(scan)
    if not scans and not problems:
        raise InputError(
            folder,
            "no T1w scan",
            "BIDS files such as sub-01/anat/sub-01_T1w.nii.gz",
            "give the folder that holds the sub-* folders, or rename the files",
        )
    return scans, problems


def scan_of(path: str | PathLike[str]) -> Scan:
    """The scan in one file. Without a BIDS name its id is made of the letters and digits of its name.

    Raises:
        InputError: another BIDS suffix than T1w, or no letter or digit to make an id of.
    """
    path = Path(path)
    stem = stem_of(path)
    try:
        return _bids_scan(path)
    except InputError:
        if stem.rpartition("_")[2] in _OTHER_SUFFIXES:
            raise
    label = re.sub(r"[^a-zA-Z0-9]", "", stem.removeprefix("sub-"))
    if not label:
        raise InputError(path, "no letter or digit in the name", "a name to make an id of", "rename the file")
    return Scan(path, f"sub-{label}", "", {"sub": label})


def is_plain_scan(path: Path) -> bool:
    """Whether a file may be a scan by its name: of no other BIDS suffix, and no derivative but a brain."""
    head, _, suffix = stem_of(path).rpartition("_")
    described = re.search(r"_desc-([a-zA-Z0-9]+)", f"_{head}")
    return suffix not in _OTHER_SUFFIXES and (described[1] if described else "") in _DESCRIPTIONS


def output_entities(entities: Mapping[str, str], keep_space: bool = False) -> str:
    """``sub-01_ses-1_acq-x``: the start of an output's name, without what the output says anew."""
    dropped = ("desc",) if keep_space else ("desc", "space", "res", "den")
    return "_".join(f"{key}-{label}" for key, label in entities.items() if key not in dropped)


def _entities_of(text: str) -> dict[str, str]:
    """Entities of ``sub-01_ses-1``; empty if it is no such text."""
    matches = [_ENTITY.fullmatch(part) for part in text.split("_")]
    found = {match[1]: match[2] for match in matches if match}
    return found if len(found) == len(matches) and next(iter(found), "") == "sub" else {}


def _bids_scan(path: Path) -> Scan:
    head, _, suffix = stem_of(path).rpartition("_")
    entities = _entities_of(head)
    if not entities:
        raise InputError(
            path,
            "a name that is not made of BIDS entities",
            "letters and digits in each, such as sub-01_ses-1_T1w.nii.gz",
            "rename the file",
        )
    if suffix != "T1w":
        raise InputError(path, f"BIDS suffix {suffix}", "a T1-weighted scan (T1w)", "give the T1w file")
    session = f"ses-{entities['ses']}" if "ses" in entities else ""
    return Scan(path, f"sub-{entities['sub']}", session, entities)


def _check_folders(scan: Scan, root: Path) -> None:
    """Refuse a file that lies in another subject's or session's folder."""
    parts = scan.path.relative_to(root).parts
    session = parts[1] if parts[1].startswith("ses-") else ""
    if (parts[0], session) != (scan.participant_id, scan.session_id):
        raise InputError(
            scan.path,
            f"it in the folder {'/'.join(parts[:-1])}",
            "the subject and session of its name",
            "move or rename it",
        )
