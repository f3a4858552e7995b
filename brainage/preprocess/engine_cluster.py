"""Where scans are preprocessed: Dask workers on this machine, on a running cluster, or in SLURM jobs."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, WorkerPlugin

from brainage.data.cohort import Scan
from brainage.errors import ConfigError

logger = logging.getLogger("brainage")

GIB = 2.0**30
# Peak of a worker's memory: libraries, templates and model grids, and what grows with the scan. Measured by
# benchmarks/cohort.py --memory; see docs/preprocessing_cohorts.md.
BASE_BYTES, BYTES_PER_VOXEL = 0.75 * GIB, 50.0
USUAL_VOXELS = 256 * 256 * 192
USABLE_SHARE = 0.8  # of the memory that is free at the start
_SETTINGS = {
    # A worker's death is answered here, see engine.py, and workers do not spill or pause.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.low-level-log-length": 0,
    "distributed.scheduler.worker-ttl": None,
    # A machine under load answers late.
    "distributed.comm.timeouts.connect": "120s",
    "distributed.comm.timeouts.tcp": "600s",
}


@dataclass(frozen=True)
class Workers:
    """Where to work.

    Attributes:
        jobs: scans at the same time; None for as many as memory and cores of this machine allow. With
            ``slurm`` the number of SLURM jobs.
        scheduler: address of a running Dask scheduler.
        slurm: submit workers as SLURM jobs, one scan each at a time, set up by dask-jobqueue's settings.
    """

    jobs: int | None = None
    scheduler: str = ""
    slurm: bool = False

    def __post_init__(self) -> None:
        if self.scheduler and (self.slurm or self.jobs):
            other = "--slurm" if self.slurm else "--jobs"
            raise ConfigError("--scheduler", self.scheduler, f"cannot be combined with {other}")
        if self.slurm and not self.jobs:
            raise ConfigError("--slurm", True, "needs --jobs, the number of SLURM jobs")


class OneScanAtATime(WorkerPlugin):
    """Makes a worker single-threaded, the kernel's first choice when memory runs out, and deaf to Ctrl-C."""

    name = "brainage"

    def setup(self, worker: Any) -> None:
        """Called by Dask in the worker."""
        import SimpleITK as sitk
        import torch

        torch.set_num_threads(1)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def memory_of(scan: Scan) -> float:
    """Bytes that a worker needs for a scan, by its header; of the usual size where that cannot be read."""
    import math

    from brainage.data.formats_reading import MOST_VOXELS, open_image

    voxels = USUAL_VOXELS
    if scan.path.is_file():
        with suppress(Exception):
            # What is wrong with a file is told when it is preprocessed.
            found = math.prod(int(size) for size in open_image(scan.path).shape[:3])
            voxels = found if 0 < found <= MOST_VOXELS else voxels
    return BASE_BYTES + BYTES_PER_VOXEL * voxels


def local_jobs(scans: Sequence[Scan]) -> int:
    """How many of these scans fit on this machine at the same time: by free memory and by cores."""
    needed = max(map(memory_of, scans), default=BASE_BYTES)
    fit = int(USABLE_SHARE * free_memory() // needed)
    return max(1, min(fit, _cores(), len(scans)))


def free_memory() -> float:
    """Bytes that are free for new processes, within the limit of a container."""
    from distributed.system import MEMORY_LIMIT

    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        if "MemAvailable" in lines:
            return min(float(lines["MemAvailable"].split()[0]) * 1024, float(MEMORY_LIMIT))
    return float(MEMORY_LIMIT)


@contextmanager
def connected(workers: Workers, jobs: int) -> Iterator[Client]:
    """A Dask client of the workers; ends those that it started.

    Args:
        workers: where.
        jobs: number of workers to start.

    Raises:
        ConfigError: no scheduler at the address, or dask-jobqueue or its settings are missing.
    """
    with dask.config.set(_SETTINGS), tempfile.TemporaryDirectory(prefix="brainage-dask-") as scratch:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        if workers.scheduler:
            try:
                client = Client(workers.scheduler, timeout=20)
            except (OSError, ValueError, TypeError) as error:
                rule = "must be the address of a running Dask scheduler, such as tcp://10.0.0.1:8786"
                raise ConfigError("--scheduler", workers.scheduler, rule) from error
            with client:
                yield _prepared(client)
            return
        cluster = _slurm_cluster(jobs) if workers.slurm else _local_cluster(jobs, scratch)
        with cluster, Client(cluster) as client:
            yield _prepared(client)


def _prepared(client: Client) -> Client:
    client.register_plugin(OneScanAtATime())
    return client


def _local_cluster(jobs: int, scratch: str) -> LocalCluster:
    return LocalCluster(
        n_workers=jobs,
        threads_per_worker=1,
        processes=True,
        memory_limit=0,
        dashboard_address=None,
        local_directory=scratch,
        silence_logs=logging.CRITICAL,
    )


def _slurm_cluster(jobs: int) -> Any:
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        rule = "needs dask-jobqueue: pip install 'brainage[slurm]'"
        raise ConfigError("--slurm", True, rule) from error
    settings = dask.config.get("jobqueue.slurm", {}) or {}
    own: dict[str, Any] = {} if settings.get("cores") else {"cores": 1}
    if not settings.get("memory"):
        own["memory"] = f"{(BASE_BYTES + BYTES_PER_VOXEL * USUAL_VOXELS) / GIB:.0f}GiB"
    try:
        cluster = SLURMCluster(**own, processes=1)
    except (TypeError, ValueError) as error:
        rule = f"dask-jobqueue refuses its settings: {error}"
        raise ConfigError("--slurm", True, rule) from error
    # Not scale(): a job that ends, by its time limit say, is replaced.
    cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
    return cluster


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
