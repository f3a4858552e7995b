"""Many scans on many workers: each scan by itself, so that none costs another."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from os import PathLike
from typing import Any

from brainage.config import PreprocessRecipe
from brainage.data.cohort import Scan
from brainage.errors import InputError
from brainage.preprocess import batch
from brainage.preprocess.batch import Row, failed_row
from brainage.preprocess.engine_cluster import Workers, connected, local_jobs

logger = logging.getLogger("brainage")

_POLL_S = 2.0  # how often to look for workers that came or went
_PATIENCE = 30  # polls without any worker between two lines about it


def preprocess_many(
    scans: Sequence[Scan],
    out_dir: str | PathLike[str],
    recipe: PreprocessRecipe,
    workers: Workers | None = None,
    force: bool = False,
) -> Generator[Row, None, None]:
    """Preprocess scans, yielding a row for ``status.tsv`` as each one ends.

    A single scan, or one at a time (``jobs`` 1), runs in this process with all its cores. Otherwise each
    scan is one task of a single-threaded Dask worker. Where a worker dies, out of memory most often, its
    scan alone is tried again, by itself when the others are done, and failed if that kills it again.

    Args:
        scans: to preprocess.
        out_dir: folder of the derivatives; workers must see it under the same path.
        recipe: what may vary.
        workers: where; by default as many processes here as memory allows.
        force: do again what is done.
    """
    workers = workers or Workers()
    here = not (workers.scheduler or workers.slurm)
    jobs = min(workers.jobs, max(len(scans), 1)) if workers.jobs else local_jobs(scans)
    if here and (workers.jobs == 1 or len(scans) < 2):
        for scan in scans:
            yield batch.preprocess_row(scan, out_dir, recipe, force)
        return
    logger.debug("%d scans on %s", len(scans), workers.scheduler or f"{jobs} workers")
    with connected(workers, jobs) as client:
        yield from run_isolated(client, scans, batch.preprocess_row, (out_dir, recipe, force))


def run_isolated(
    client: Any, scans: Sequence[Scan], work: Callable[..., Row], arguments: tuple[Any, ...]
) -> Generator[Row, None, None]:
    """The rows of ``work(scan, *arguments)`` as they come, with one scan at a time on each worker thread.

    No more tasks are handed out than there are threads: Dask blames the death of a worker on all tasks
    that wait on it, and here only the one at work shall pay.
    """
    again: list[Scan] = []
    yield from _round(client, scans, work, arguments, again.append)
    for scan in again:
        lost: list[Scan] = []
        yield from _round(client, [scan], work, arguments, lost.append, attempt=2)
        if lost:
            yield failed_row(
                scan,
                InputError(
                    scan.path,
                    "a scan at which the process died twice",
                    "enough memory to preprocess it",
                    "free memory, or resample the scan to about 1 mm",
                ),
            )


def _round(
    client: Any,
    scans: Sequence[Scan],
    work: Callable[..., Row],
    arguments: tuple[Any, ...],
    on_death: Callable[[Scan], None],
    attempt: int = 1,
) -> Generator[Row, None, None]:
    from distributed import wait

    waiting = deque(enumerate(scans))
    running: dict[Any, Scan] = {}
    polls_alone = 0
    try:
        while waiting or running:
            threads = sum(client.nthreads().values())
            while waiting and len(running) < threads:
                index, scan = waiting.popleft()
                key = f"scan-{index}-{attempt}-{id(scans)}"
                running[client.submit(work, scan, *arguments, key=key, pure=False, retries=0)] = scan
            polls_alone = 0 if threads else polls_alone + 1
            if polls_alone % _PATIENCE == 1:
                logger.info("Waiting for workers; %d scans to do", len(waiting) + len(running))
            if not running:
                time.sleep(_POLL_S)
                continue
            try:
                done = wait(list(running), timeout=_POLL_S, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                continue
            for future in done:
                scan = running.pop(future)
                row = _row_of(future, scan)
                if row is None:
                    logger.warning("%s: the worker died; it is tried again later", scan.path.name)
                    on_death(scan)
                else:
                    yield row
    finally:
        if running:
            client.cancel(list(running), force=True)


def _row_of(future: Any, scan: Scan) -> Row | None:
    """The row of a task that ended; None where its worker died."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    try:
        return dict(future.result())
    except (KilledWorker, CancelledError):
        return None
    except Exception as error:
        logger.debug("A task failed outside of its scan", exc_info=True)
        return failed_row(scan, error)
