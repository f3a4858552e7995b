"""One row for each scan, whatever becomes of it, and the table of the rows."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from brainage.config import PreprocessRecipe
from brainage.data.cohort import Problem, Scan
from brainage.errors import InputError, plain_words
from brainage.files import replacing
from brainage.preprocess.chain import QualityError, preprocess_scan

logger = logging.getLogger("brainage")

Row = dict[str, Any]
# Key of a row that says why no further scan can be written; not part of the table.
STOP = "stop"
_DISK = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "no quota left",
    errno.EROFS: "a disk that only reads",
}
COLUMNS = ("participant_id", "session_id", "path", "status", "message", "seconds")


def preprocess_row(
    scan: Scan, out_dir: str | PathLike[str], recipe: PreprocessRecipe, force: bool = False
) -> Row:
    """Preprocess one scan; its row says what became of it. Raises nothing for what is wrong with it.

    A scan that an earlier run finished has no ``seconds``.
    """
    start = time.monotonic()
    row, resumed = _row(scan), False
    qc: dict[str, float] = {}
    try:
        done = preprocess_scan(scan, out_dir, recipe, force)
        qc, resumed = dict(done.qc), done.resumed
        row |= {"status": "warning" if done.warnings else "ok", "message": "; ".join(done.warnings)}
    except InputError as error:
        row |= {"status": "failed", "message": str(error)}
        if isinstance(error, QualityError):
            qc = dict(error.qc)
    except Exception as error:
        # One scan must not cost the others; the traceback goes to the log.
        logger.debug("Preprocessing failed", exc_info=True)
        row |= failed_row(scan, error)
        if isinstance(error, OSError) and error.errno in _DISK:
            row[STOP] = _DISK[error.errno]
    row["seconds"] = "" if resumed else f"{time.monotonic() - start:.1f}"
    return row | {name: f"{value:.4g}" for name, value in qc.items()}


def failed_row(scan: Scan, error: Exception) -> Row:
    """The row of a scan that was lost to an error."""
    message = str(error) if isinstance(error, InputError) else ""
    message = message or f"{scan.path.name}: unexpected error: {plain_words(error)}"
    return _row(scan) | {"status": "failed", "message": message}


def waiting_row(scan: Scan) -> Row:
    """The row of a scan until it is done."""
    return _row(scan) | {"status": "waiting"}


def problem_row(problem: Problem) -> Row:
    """The row of a file that could not even be taken as a scan."""
    return _row(Scan(problem.path, "", "")) | {"status": "failed", "message": problem.message}


def absent_row(name: str, root: Path) -> Row:
    """The row of a participant who has no scan."""
    message = f"{name}: in participants.tsv but without a T1w scan"
    return _row(Scan(root / name, name, "")) | {"status": "missing", "message": message}


def write_status(path: Path, rows: Iterable[Row], root: Path, keep_others: bool = False) -> None:
    """Write ``status.tsv``: one row a file, sorted by path, with paths from ``root`` on.

    Args:
        path: of the table.
        rows: of this run.
        root: the BIDS folder.
        keep_others: keep rows that an earlier run wrote about other files.
    """
    table = pd.DataFrame([{key: value for key, value in row.items() if key != STOP} for row in rows])
    if table.empty:
        table = pd.DataFrame(columns=list(COLUMNS))
    # A row of another run may lack figures that this one has.
    table = table.fillna("").astype(str)
    table["path"] = [relative(Path(name), root) for name in table["path"]]
    if keep_others:
        table = with_other_rows(table, path, "\t")
    first = [name for name in COLUMNS if name in table]
    table = table[[*first, *table.columns.drop(first)]].sort_values(["path", "participant_id"], kind="stable")
    with replacing(path) as partial:
        table.replace(r"[\t\r\n]+", " ", regex=True).replace("", "n/a").to_csv(
            partial, sep="\t", index=False, na_rep="n/a"
        )


def with_other_rows(table: pd.DataFrame, path: Path, separator: str) -> pd.DataFrame:
    """The rows of a table, and those that its file at ``path`` has about other paths; all are text."""
    if not path.is_file():
        return table
    try:
        before = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
        return pd.concat([before[~before["path"].isin(table["path"])], table])
    except (pd.errors.ParserError, pd.errors.EmptyDataError, KeyError, UnicodeDecodeError):
        logger.warning("%s could not be read and is written anew", path.name)
        return table


def _row(scan: Scan) -> Row:
    row: Row = dict.fromkeys(COLUMNS, "")
    return row | {
        "participant_id": scan.participant_id,
        "session_id": scan.session_id,
        "path": str(scan.path),
    }


def relative(path: Path, root: Path) -> str:
    """A path from ``root`` on; its name if it lies elsewhere, or is ``root``, as a DICOM folder may be."""
    below = path != root and path.is_relative_to(root)
    return path.relative_to(root).as_posix() if below else path.absolute().name
