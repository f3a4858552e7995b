"""Many scans, one row each, whatever becomes of them."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
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
COLUMNS = ("participant_id", "session_id", "path", "status", "message", "seconds")


def preprocess_many(
    scans: Sequence[Scan],
    out_dir: str | PathLike[str],
    recipe: PreprocessRecipe,
    jobs: int = 1,
    force: bool = False,
) -> Generator[Row, None, None]:
    """Preprocess scans, yielding a row for ``status.tsv`` as each one ends.

    Args:
        scans: to preprocess.
        out_dir: folder of the derivatives.
        recipe: what may vary.
        jobs: processes at work, each of one thread; with 1, this process, with all cores.
        force: do again what is done.
    """
    arguments = (out_dir, recipe, force)
    if jobs == 1 or len(scans) < 2:
        for scan in scans:
            yield preprocess_row(scan, *arguments)
        return
    left = {str(scan.path): scan for scan in scans}
    try:
        for row in _in_pool(scans, arguments, min(jobs, len(scans))):
            del left[row["path"]]
            yield row
        return
    except BrokenProcessPool:
        # Out of memory, most often. Which scan it was is unknown, so the rest go on alone, one by one.
        logger.warning("A worker process died; %d scans go on one at a time", len(left))
    for scan in list(left.values()):
        try:
            yield from _in_pool([scan], arguments, 1)
        except BrokenProcessPool:
            error = InputError(
                scan.path,
                "a scan at which the process died",
                "enough memory to preprocess it",
                "free memory or use fewer jobs",
            )
            yield _row(scan) | {"status": "failed", "message": str(error)}


def preprocess_row(
    scan: Scan, out_dir: str | PathLike[str], recipe: PreprocessRecipe, force: bool = False
) -> Row:
    """Preprocess one scan; its row says what became of it. Raises nothing for what is wrong with it."""
    start = time.monotonic()
    row = _row(scan)
    qc: dict[str, float] = {}
    try:
        done = preprocess_scan(scan, out_dir, recipe, force)
        qc = dict(done.qc)
        row |= {"status": "warning" if done.warnings else "ok", "message": "; ".join(done.warnings)}
    except InputError as error:
        row |= {"status": "failed", "message": str(error)}
        if isinstance(error, QualityError):
            qc = dict(error.qc)
    except Exception as error:
        # One scan must not cost the others; the traceback goes to the log.
        logger.debug("Preprocessing failed", exc_info=True)
        said = plain_words(error)
        row |= {"status": "failed", "message": f"{scan.path.name}: unexpected error: {said}"}
    row["seconds"] = f"{time.monotonic() - start:.1f}"
    return row | {name: f"{value:.4g}" for name, value in qc.items()}


def problem_row(problem: Problem) -> Row:
    """The row of a file that could not even be taken as a scan."""
    return _row(Scan(problem.path, "", "")) | {"status": "failed", "message": problem.message}


def write_status(path: Path, rows: Iterable[Row], root: Path, keep_others: bool = False) -> None:
    """Write ``status.tsv``: one row a file, sorted by path, with paths from ``root`` on.

    Args:
        path: of the table.
        rows: of this run.
        root: the BIDS folder.
        keep_others: keep rows that an earlier run wrote about other files.
    """
    table = pd.DataFrame(rows).astype(str)
    if table.empty:
        table = pd.DataFrame(columns=list(COLUMNS))
    table["path"] = [_relative(Path(name), root) for name in table["path"]]
    if keep_others and path.is_file():
        try:
            before = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
            table = pd.concat([before[~before["path"].isin(table["path"])], table])
        except (pd.errors.ParserError, pd.errors.EmptyDataError, KeyError, UnicodeDecodeError):
            logger.warning("%s could not be read and is written anew", path.name)
    first = [name for name in COLUMNS if name in table]
    table = table[[*first, *table.columns.drop(first)]].sort_values("path")
    with replacing(path) as partial:
        table.replace(r"[\t\r\n]+", " ", regex=True).replace("", "n/a").to_csv(
            partial, sep="\t", index=False, na_rep="n/a"
        )


def _in_pool(scans: Sequence[Scan], arguments: tuple[Any, ...], jobs: int) -> Generator[Row, None, None]:
    # Spawned, not forked: ITK's and torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)
    try:
        futures = [pool.submit(preprocess_row, scan, *arguments) for scan in scans]
        for future in as_completed(futures):
            yield future.result()
    except KeyboardInterrupt:
        logger.warning("Interrupted; the scans at work are finished first, then this ends")
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """One thread, and deaf to Ctrl-C, which reaches the whole group: the parent decides."""
    import SimpleITK as sitk
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _row(scan: Scan) -> Row:
    row: Row = dict.fromkeys(COLUMNS, "")
    return row | {
        "participant_id": scan.participant_id,
        "session_id": scan.session_id,
        "path": str(scan.path),
    }


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
