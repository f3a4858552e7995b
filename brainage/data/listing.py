"""What a user may name as input: BIDS folders, other folders, tables of scans, single files, DICOM."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from brainage.data.cohort import Problem, Scan, find_scans, is_plain_scan, output_entities, scan_of
from brainage.data.dicom import dicom_scan
from brainage.data.formats import NAMES, header_of, is_dicom, is_volume
from brainage.data.listing_table import read_list
from brainage.errors import InputError

_PEOPLE = ("participant_id", "session_id", "age", "sex", "site")


@dataclass(frozen=True, eq=False)
class Listing:
    """The scans that inputs stand for.

    Attributes:
        root: folder that paths in tables are relative to.
        scans: with ids that no other scan of the listing has.
        problems: files, rows and folders that cannot be taken as a scan.
        people: of ``read_participants``; None where no table came with the scans.
        notes: on how tables were read.
        bids: whether the only input is a BIDS folder.
    """

    root: Path
    scans: tuple[Scan, ...]
    problems: tuple[Problem, ...] = ()
    people: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
    bids: bool = False


def list_scans(inputs: Sequence[Path]) -> Listing:
    """The scans of any number of inputs. A useless one costs only itself, unless it is the only one.

    Raises:
        InputError: the only input is missing, or holds no scan.
    """
    parts = []
    for path in inputs:
        try:
            parts.append(list_input(path))
        except InputError as error:
            if len(inputs) == 1:
                raise
            parts.append(Listing(path.parent, (), (Problem(path, str(error)),)))
    if len(parts) == 1:
        return parts[0]
    tables = [part.people for part in parts if part.people is not None]
    return Listing(
        root=_common_root([part.root for part in parts]),
        scans=tuple(with_ids_of_their_own([scan for part in parts for scan in part.scans])),
        problems=tuple(problem for part in parts for problem in part.problems),
        people=pd.concat(tables, ignore_index=True) if tables else None,
        notes=tuple(note for part in parts for note in part.notes),
    )


def list_input(path: Path) -> Listing:
    """The scans of one input.

    Raises:
        InputError: missing, or without any scan.
    """
    if path.is_dir():
        return _list_folder(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        table = read_list(path)
        scans, problems = _of_rows(table.scans)
        return Listing(
            path.parent, tuple(scans), (*table.problems, *problems), table.people, tuple(table.notes)
        )
    if is_dicom(path):
        return Listing(path.parent, (dicom_scan(path),))
    # A missing file of a scan's name keeps its id, for the row that says so.
    if not path.exists() and not path.is_symlink() and not is_volume(header_of(path)):
        raise InputError(
            path, "no such file or folder", f"{NAMES}, a BIDS folder or a table", "check the path"
        )
    return Listing(path.parent, (scan_of(header_of(path)),))


def is_bids(folder: Path) -> bool:
    """Whether a folder is laid out as BIDS has it: folders of subjects with ``anat`` in them."""
    if (folder / "dataset_description.json").is_file():
        return True
    return any(True for _ in (*folder.glob("sub-*/anat"), *folder.glob("sub-*/ses-*/anat")))


def with_ids_of_their_own(scans: Iterable[Scan]) -> list[Scan]:
    """Number scans whose files have equal names, such as ``a/T1.nii.gz`` and ``b/T1.nii.gz``.

    Otherwise the outputs of one would overwrite those of the other. Folders are not used for ids, since
    they often carry names of people.
    """
    taken: set[str] = set()
    own = []
    for scan in scans:
        label, count = scan.entities["sub"], 1
        while output_entities(scan.entities) in taken:
            count += 1
            entities = {**scan.entities, "sub": f"{label}x{count}"}
            scan = replace(scan, participant_id=f"sub-{entities['sub']}", entities=entities)
        taken.add(output_entities(scan.entities))
        own.append(scan)
    return own


def _list_folder(folder: Path) -> Listing:
    if is_bids(folder):
        scans, problems = find_scans(folder)
        return Listing(folder, tuple(scans), tuple(problems), bids=True)
    found: list[Scan] = []
    problems = []
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        paths = [Path(place, name) for name in sorted(names)]
        for path in paths:
            if not is_volume(path) or not is_plain_scan(path):
                continue
            try:
                found.append(scan_of(path))
            except InputError as error:
                problems.append(Problem(path, str(error)))
        if any(is_dicom(path) for path in paths):
            try:
                found.append(dicom_scan(Path(place)))
            except InputError as error:
                problems.append(Problem(Path(place), str(error)))
    if not found and not problems:
        raise InputError(
            folder,
            "no T1w scan",
            f"a BIDS folder, or files of {NAMES}",
            "give the folder that holds the scans",
        )
    return Listing(folder, tuple(with_ids_of_their_own(found)), tuple(problems))


def _of_rows(scans: Sequence[Scan]) -> tuple[list[Scan], list[Problem]]:
    """Scans of a table: two rows with one id stay apart only by what their files' names add to it."""
    seen: dict[str, Path] = {}
    kept, problems = [], []
    for scan in scans:
        name = output_entities(scan.entities)
        if name in seen:
            error = InputError(
                scan.path,
                f"the id {name} of another row ({seen[name].name})",
                "an id, or an id and a session, for each scan",
                "add a column session, or correct the id",
            )
            problems.append(Problem(scan.path, str(error)))
            continue
        seen[name] = scan.path
        kept.append(scan)
    return kept, problems


def _common_root(roots: Sequence[Path]) -> Path:
    """The folder that all share; the root of the file system, which would make paths absolute, is none."""
    try:
        shared = Path(os.path.commonpath([root.absolute() for root in roots]))
    except ValueError:
        return Path()
    return shared if shared != Path(shared.anchor) else Path()
