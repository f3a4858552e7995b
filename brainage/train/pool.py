"""Independent trainings side by side, each process on its share of the cores."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch

logger = logging.getLogger("brainage")

ResultT = TypeVar("ResultT")


def in_processes(
    function: Callable[..., ResultT], calls: Sequence[tuple[Any, ...]], jobs: int
) -> Iterator[ResultT]:
    """Results of ``function(*call)``, in the order of ``calls``, computed in ``jobs`` processes.

    They end with this process, also if it is killed.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # A fork would inherit the locks of torch's threads. Volumes go through files in shared memory, of
    # which a process may have more than open descriptors.
    torch.multiprocessing.set_sharing_strategy("file_system")
    context = multiprocessing.get_context("spawn")
    settings = (threads, logger.getEffectiveLevel())
    with ProcessPoolExecutor(jobs, context, _prepare_worker, settings) as pool:
        yield from pool.map(function, *zip(*calls, strict=True))


def _prepare_worker(threads: int, level: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.multiprocessing.set_sharing_strategy("file_system")
    torch.set_num_threads(threads)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(level)


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one, and end too.

    Without it a worker whose parent was killed would train to the end of its call, for no one, and then wait
    for ever: all workers hold the queue of calls open.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
