"""Two runs on one folder: the second is refused, and a dead one leaves nothing in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from brainage.errors import InputError
from brainage.preprocess.lock import locked

HOLDER = """
import sys, time
from pathlib import Path
from brainage.preprocess.lock import locked
with locked(Path(sys.argv[1]), sys.argv[2:]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path):
    held = []

    def start(*participants):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path), *participants], stdout=subprocess.PIPE, text=True
        )
        held.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in held:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_second_run_is_refused_until_the_first_is_gone_even_by_sigkill(hold, tmp_path):
    process = hold()
    with (
        pytest.raises(InputError, match=f"another run at work on it .process {process.pid} on "),
        locked(tmp_path),
    ):
        pass
    with pytest.raises(InputError, match="another run"), locked(tmp_path, ["sub-01"]):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with locked(tmp_path):
        pass


def test_runs_on_different_participants_share_a_folder(hold, tmp_path):
    hold("sub-01", "sub-02")
    with locked(tmp_path, ["sub-03"]):
        pass
    with pytest.raises(InputError, match="another run"), locked(tmp_path, ["sub-02"]):
        pass
    with pytest.raises(InputError, match="another run"), locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="a folder that cannot be written"),
        locked(tmp_path / "file" / "out"),
    ):
        pass
