"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

# Before torch is imported: the workers of pytest-xdist share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

# No deadline: a busy machine is no bug. In CI the examples are the same in every run.
settings.register_profile("brainage", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("brainage")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Folder of real data by name; skips the test on a machine without it."""
    root = Path(os.environ.get("BRAINAGE_DATA", REPOSITORY.parent / "shared" / "data"))

    def folder(name: str) -> Path:
        if not (root / name).exists():
            pytest.skip(f"real data not here: {name} (BRAINAGE_DATA names the folder that holds it)")
        return root / name

    return folder
