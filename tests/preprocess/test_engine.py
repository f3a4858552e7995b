"""Dask workers: a scan that kills its worker costs itself alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from brainage.config import PreprocessRecipe
from brainage.data.cohort import Scan, scan_of
from brainage.errors import ConfigError
from brainage.preprocess import engine_cluster
from brainage.preprocess.engine import preprocess_many, run_isolated
from brainage.preprocess.engine_cluster import Workers, connected, local_jobs, memory_of


def work(scan, folder):
    """Kills its worker at sub-2 always, at sub-3 the first time."""
    first = Path(folder) / scan.participant_id
    if scan.participant_id == "sub-2" or (scan.participant_id == "sub-3" and not first.exists()):
        first.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if scan.participant_id == "sub-4":
        raise KeyError("odd")
    return {"participant_id": scan.participant_id, "status": "ok"}


@pytest.fixture
def importable(monkeypatch):
    """Workers find this module by its name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    import importlib

    return importlib.import_module("test_engine")


def test_a_worker_that_is_killed_costs_one_scan_after_a_second_try(importable, tmp_path):
    scans = [Scan(Path(f"sub-{index}_T1w.nii"), f"sub-{index}") for index in range(6)]
    with connected(Workers(jobs=2), 2) as client:
        rows = list(run_isolated(client, scans, importable.work, (str(tmp_path),)))
    status = {row["participant_id"]: row["status"] for row in rows}
    assert status == {f"sub-{index}": "failed" if index in (2, 4) else "ok" for index in range(6)}
    messages = {row["participant_id"]: row.get("message", "") for row in rows}
    assert "the process died twice" in messages["sub-2"]
    assert "unexpected error" in messages["sub-4"]


def test_scans_on_workers_get_their_own_rows(save, noise, tmp_path):
    scans = [scan_of(tmp_path / "sub-00_T1w.nii.gz"), scan_of(save(noise[0], name="sub-01_T1w.nii.gz"))]
    rows = list(preprocess_many(scans, tmp_path / "out", PreprocessRecipe(), Workers(jobs=2)))
    assert sorted(row["participant_id"] for row in rows) == ["sub-00", "sub-01"]
    assert {row["status"] for row in rows} == {"failed"}
    assert "no such file" in str(rows)
    assert "a 2-D image" in str(rows)


def test_workers_end_with_a_run_that_is_killed(killed_at_work):
    program = """
import sys
from brainage.preprocess.engine_cluster import Workers, connected

def work(folder):
    import os
    from pathlib import Path
    (Path(folder) / f"scan-{os.getpid()}").touch()
    while True:
        sum(range(1000))

if __name__ == "__main__":
    with connected(Workers(jobs=1), 1) as client:
        client.submit(work, sys.argv[1]).result()
"""
    assert killed_at_work(program, 1) == []


def test_a_running_scheduler_is_used(importable, tmp_path):
    from distributed import LocalCluster

    scans = [Scan(Path(f"sub-{index}_T1w.nii"), f"sub-{index}") for index in (0, 1)]
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
        connected(Workers(scheduler=cluster.scheduler_address), 0) as client,
    ):
        rows = list(run_isolated(client, scans, importable.work, (str(tmp_path),)))
    assert [row["status"] for row in rows] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scheduler": "tcp://x:1", "jobs": 2}, "--jobs"),
        ({"scheduler": "tcp://x:1", "slurm": True}, "--slurm"),
        ({"slurm": True}, "needs --jobs"),
    ],
)
def test_options_that_exclude_each_other(options, words):
    with pytest.raises(ConfigError, match=words):
        Workers(**options)


def test_no_scheduler_at_the_address():
    with (
        pytest.raises(ConfigError, match="running Dask scheduler"),
        connected(Workers(scheduler="nonsense"), 0),
    ):
        pass


def test_workers_are_sized_by_memory(save, noise, tmp_path, monkeypatch):
    small = scan_of(save(noise))
    absent = scan_of(tmp_path / "sub-02_T1w.nii.gz")
    assert memory_of(small) < memory_of(absent)
    monkeypatch.setattr("brainage.preprocess.engine_cluster._cores", lambda: 8)
    monkeypatch.setattr(
        "brainage.preprocess.engine_cluster.free_memory", lambda: 2.6 * memory_of(small) / 0.8
    )
    assert local_jobs([small] * 9) == 2
    assert local_jobs([small]) == 1
    assert local_jobs([small, absent]) == 1
    monkeypatch.setattr(engine_cluster, "free_memory", lambda: 0.0)
    assert local_jobs([small] * 9) == 1
