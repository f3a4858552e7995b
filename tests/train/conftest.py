"""The toy training, in this process and as a program."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

PROGRAM = Path(__file__).with_name("toy_training.py")


@pytest.fixture(scope="session")
def load_program() -> Callable[[Path], ModuleType]:
    """A Python file as a module of its name."""

    def load(program: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(program.stem, program)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def toy(load_program: Callable[[Path], ModuleType]) -> ModuleType:
    """``toy_training.py`` as a module."""
    return load_program(PROGRAM)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run_program() -> Run:
    """Run a Python file with arguments, in processes of its own, and end what they leave."""

    def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(program), *arguments]
        # Without what a launcher may have left for the tests' own process.
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        }
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        ) as process:
            try:
                output, errors = process.communicate(timeout=900)
            finally:
                # The processes that it started, should any be left.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    return run


@pytest.fixture(scope="session")
def run_toy(run_program: Run) -> Run:
    """Run the toy training as a program: folder, changed settings, and the micro-batch to be killed at."""

    def run(out: Path, kill_after: int | None = None, **settings: Any) -> subprocess.CompletedProcess[str]:
        more = () if kill_after is None else (str(kill_after),)
        return run_program(PROGRAM, str(out), json.dumps(settings), *more)

    return run


@pytest.fixture(scope="session")
def assert_same_training() -> Callable[[Path, Path], None]:
    """Compare the training states of two folders, up to rounding."""

    def compare(one: Path, other: Path) -> None:
        first, second = (
            torch.load(out / "training_state.pt", weights_only=True, map_location="cpu")
            for out in (one, other)
        )
        # Adam's first moment is a weighted sum of the gradients.
        for name, moments in first["optimizer"]["state"].items():
            gradient, also = moments["exp_avg"], second["optimizer"]["state"][name]["exp_avg"]
            torch.testing.assert_close(also, gradient, atol=2e-6, rtol=1e-3, msg=name)
        for part in ("model", "averaged"):
            for name, weight in first[part].items():
                # Softmax ignores the keys' bias: its gradient is rounding, which Adam blows up.
                if not name.endswith("query_key_value.bias"):
                    torch.testing.assert_close(second[part][name], weight, atol=2e-5, rtol=1e-3, msg=name)

    return compare
