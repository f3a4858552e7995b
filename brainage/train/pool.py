"""Independent trainings side by side, each process on its share of the cores."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch

logger = logging.getLogger("brainage")

ResultT = TypeVar("ResultT")


def in_processes(
    function: Callable[..., ResultT], calls: Sequence[tuple[Any, ...]], jobs: int
) -> Iterator[ResultT]:
    """Results of ``function(*call)``, in the order of ``calls``, computed in ``jobs`` processes."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # A fork would inherit the locks of torch's threads. Volumes go through files in shared memory, of
    # which a process may have more than open descriptors.
    torch.multiprocessing.set_sharing_strategy("file_system")
    context = multiprocessing.get_context("spawn")
    settings = (threads, logger.getEffectiveLevel())
    with ProcessPoolExecutor(jobs, context, _prepare_worker, settings) as pool:
        yield from pool.map(function, *zip(*calls, strict=True))


def _prepare_worker(threads: int, level: int) -> None:
    torch.multiprocessing.set_sharing_strategy("file_system")
    torch.set_num_threads(threads)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(level)
