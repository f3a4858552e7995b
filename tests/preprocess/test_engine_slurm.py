"""``--slurm`` against commands that pretend to be SLURM's: jobs are submitted, work, and are cancelled."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from brainage.data.cohort import Scan
from brainage.preprocess.engine import run_isolated
from brainage.preprocess.engine_cluster import Workers, connected

pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not here: pip install 'brainage[slurm]'")

COMMANDS = {
    # The script is gone when sbatch returns; SLURM, too, works with a copy.
    "sbatch": 'cp "$1" "$FAKE_SLURM/job.sh"\nsetsid bash "$FAKE_SLURM/job.sh" > "$FAKE_SLURM/log" 2>&1 &\n'
    'echo $! > "$FAKE_SLURM/pid"\necho "Submitted batch job 7"',
    "scancel": 'kill -- -$(cat "$FAKE_SLURM/pid")\necho "$@" > "$FAKE_SLURM/cancelled"',
    "squeue": "true",
}


def work(scan):
    return {"participant_id": scan.participant_id, "status": "ok", "pid": os.getpid()}


def test_scans_are_done_in_slurm_jobs_which_are_cancelled_at_the_end(tmp_path, monkeypatch):
    for name, text in COMMANDS.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import test_engine_slurm as importable

    scans = [Scan(Path(f"sub-{index}_T1w.nii"), f"sub-{index}") for index in range(3)]
    with connected(Workers(jobs=1, slurm=True), 1) as client:
        rows = list(run_isolated(client, scans, importable.work, ()))
    assert sorted(row["participant_id"] for row in rows) == ["sub-0", "sub-1", "sub-2"]
    assert {row["status"] for row in rows} == {"ok"}
    assert os.getpid() not in {row["pid"] for row in rows}
    script = (tmp_path / "job.sh").read_text()
    assert "#SBATCH --cpus-per-task=1" in script
    assert sys.executable in script
    deadline = time.monotonic() + 20
    while not (tmp_path / "cancelled").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert (tmp_path / "cancelled").read_text().strip() == "7"
