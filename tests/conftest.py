"""What all tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch is imported: the workers of pytest-xdist share the cores.
os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or "1"

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from brainage.models.weights import TrainedModel

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


@pytest.fixture
def killed_at_work(tmp_path: Path) -> Iterator[Callable[[str, int], list[int]]]:
    """Runs a program, kills it once its workers are at work, and tells which of them are left after 20 s.

    The program gets a folder, in which each worker leaves a file named by its process, ``anything-1234``.
    """
    pids: list[int] = []

    def run(program: str, workers: int) -> list[int]:
        script, marks = tmp_path / "program.py", tmp_path / "at_work"
        script.write_text(program, encoding="utf-8")
        marks.mkdir()
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        with subprocess.Popen([sys.executable, str(script), str(marks)], env=environment) as process:
            while len(pids) < workers and process.poll() is None:
                time.sleep(0.1)
                pids[:] = [int(mark.name.rpartition("-")[2]) for mark in marks.iterdir()]
            process.kill()
        assert len(pids) == workers
        patience = time.monotonic() + 20
        while any(map(_runs, pids)) and time.monotonic() < patience:
            time.sleep(0.1)
        return list(filter(_runs, pids))

    yield run
    for pid in filter(_runs, pids):
        os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie, which nobody may have asked for its end yet."""
    if not Path("/proc/self/stat").is_file():
        pytest.skip("needs /proc")
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="session")
def tiny_model() -> TrainedModel:
    """An untrained model of the real layout, whose ages mean nothing."""
    import torch

    from brainage.config import BrainAgeRecipe
    from brainage.models.brain_age import BrainAgeModel
    from brainage.models.weights import TrainedModel
    from brainage.preprocess.chain import fingerprint
    from brainage.train.layout import lay_out

    sizes = {"dim": 32, "depth": 1, "num_heads": 2, "hidden_dim": 16, "moe_blocks": [0], "rank": 2}
    recipe = BrainAgeRecipe.model_validate({"name": "untrained", "model": sizes | {"free_experts": 1}})
    layout, regions = lay_out(recipe)
    torch.manual_seed(0)
    model = BrainAgeModel(recipe.model, layout, 50.0, 20.0).eval()
    torch.nn.init.normal_(model.head.weight_ND)
    features = (len(layout.index_N), 10)
    return TrainedModel(
        model=model,
        recipe=recipe,
        region_names=regions.names,
        region_groups=regions.groups,
        region_hemispheres=regions.hemispheres,
        region_share_NR=regions.share_NR,
        residuals_C=torch.linspace(-10, 10, 41),
        typical_mean_NF=torch.full(features, 0.1),
        typical_std_NF=torch.full(features, 0.1),
        facts={
            "name": "untrained",
            "fingerprint": "0" * 16,
            "preprocessing_fingerprint": fingerprint(recipe.preprocess),
            "num_subjects": 0,
            "age_range": [18.0, 96.0],
            "unusual_limit": 1e9,
        },
    )
