"""A run of preprocessing on an output folder: alone on it, resumable, with its table kept up to date."""

from __future__ import annotations

import logging
from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from brainage.config import PreprocessRecipe
from brainage.data.listing import Listing
from brainage.data.listing_people import call_roll, write_people
from brainage.errors import ConfigError, InputError
from brainage.files import PARTIAL, replacing
from brainage.preprocess.batch import STOP, Row, absent_row, problem_row, waiting_row
from brainage.preprocess.engine import preprocess_many
from brainage.preprocess.engine_cluster import Workers
from brainage.preprocess.engine_status import STATUS, StatusTable
from brainage.preprocess.lock import FOLDER, locked
from brainage.preprocess.outputs import describe_dataset, refuse_unwritable

logger = logging.getLogger("brainage")

# What BIDS has no place for, of this and of ``brainage run``.
_IGNORED = "\n".join((STATUS, FOLDER, "brain_ages.csv", "maps", "reports", "group*", "qc*", "*_xfm.txt", ""))


@dataclass(frozen=True)
class RunOptions:
    """How a run goes.

    Attributes:
        workers: where it works.
        force: do again what is done.
        stop_on_first_crash: end at the first scan that fails.
        participants: the only ones that the run is about; all where empty.
    """

    workers: Workers = field(default_factory=Workers)
    force: bool = False
    stop_on_first_crash: bool = False
    participants: tuple[str, ...] = ()


def narrowed(listing: Listing, participants: Collection[str], sessions: Collection[str]) -> Listing:
    """The part of a listing that is about some participants and sessions, with or without prefixes.

    Raises:
        ConfigError: a label without any scan.
    """
    wanted = {label if label.startswith("sub-") else f"sub-{label}" for label in participants}
    visits = {label if label.startswith("ses-") else f"ses-{label}" for label in sessions}

    def folders(path: Path) -> tuple[str, ...]:
        return path.relative_to(listing.root).parts if path.is_relative_to(listing.root) else ()

    scans = listing.scans
    problems = listing.problems
    if wanted:
        found = {scan.participant_id for scan in scans} | {part for p in problems for part in folders(p.path)}
        _refuse_absent("--participant-label", wanted - found)
        scans = tuple(scan for scan in scans if scan.participant_id in wanted)
        problems = tuple(problem for problem in problems if wanted & set(folders(problem.path)))
    if visits:
        found = {scan.session_id for scan in scans} | {part for p in problems for part in folders(p.path)}
        _refuse_absent("--session-label", visits - found)
        scans = tuple(scan for scan in scans if scan.session_id in visits)
        problems = tuple(problem for problem in problems if visits & set(folders(problem.path)))
    return replace(listing, scans=scans, problems=problems)


def preprocess_listing(
    listing: Listing, out_dir: Path, recipe: PreprocessRecipe, options: RunOptions
) -> Generator[Row, None, None]:
    """Preprocess a listing into a folder, yielding rows: first what cannot be tried, then scans as they end.

    ``status.tsv`` begins with every scan "waiting" and is replaced as scans end, so that it tells at any
    moment, also after a SIGKILL, what is done. Rows of an earlier run about other scans stay only where
    the run is about some ``participants``.

    Raises:
        InputError: another run holds the folder, or it cannot be written (any more).
    """
    with locked(out_dir, options.participants):
        with refuse_unwritable(out_dir):
            _tidy(out_dir, options.participants)
            describe_dataset(out_dir)
            with replacing(out_dir / ".bidsignore") as partial:
                partial.write_text(_IGNORED, encoding="utf-8")
            write_people(listing, out_dir, options.participants)
        roll = call_roll(listing)
        for note in roll.notes:
            logger.info("%s", note)
        absent = [name for name in roll.absent if not options.participants or name in options.participants]
        first = [problem_row(problem) for problem in listing.problems]
        first += [absent_row(name, listing.root) for name in absent]
        waiting = [waiting_row(scan) for scan in listing.scans]
        table = StatusTable(out_dir, listing.root, [*first, *waiting])
        table.save()
        yield from first
        results = preprocess_many(listing.scans, out_dir, recipe, options.workers, options.force)
        with _closing(results), _saved_at_last(table):
            for row in results:
                if (remark := roll.remarks.get(row["participant_id"])) and row["status"] != "failed":
                    row["message"] = "; ".join(filter(None, (row["message"], remark)))
                stop = row.pop(STOP, "")
                if stop:
                    with suppress(InputError):
                        table.put(row)
                    with refuse_unwritable(out_dir):
                        raise OSError(0, stop)
                table.put(row)
                yield row
                if options.stop_on_first_crash and row["status"] == "failed":
                    logger.warning("Stopped at the first scan that failed")
                    return
        table.save(keep_others=bool(options.participants))


@contextmanager
def _closing(results: Generator[Row, None, None]) -> Generator[None, None, None]:
    try:
        yield
    finally:
        results.close()


@contextmanager
def _saved_at_last(table: StatusTable) -> Generator[None, None, None]:
    """Write what is not written yet, also where a run ends early."""
    try:
        yield
    finally:
        with suppress(InputError):
            table.save()


def _tidy(out_dir: Path, participants: Collection[str]) -> None:
    """Remove what a killed run left half-written; the lock is held, so nobody is writing it."""
    for folder in [out_dir / name for name in participants] or [out_dir, *out_dir.glob("sub-*")]:
        pattern = f"{PARTIAL}*"
        for path in [*folder.glob(pattern), *(folder.rglob(pattern) if folder != out_dir else ())]:
            path.unlink(missing_ok=True)


def _refuse_absent(option: str, absent: set[str]) -> None:
    if absent:
        raise ConfigError(option, min(absent), "must have a T1w scan in the input")
