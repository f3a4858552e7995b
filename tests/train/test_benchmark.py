"""The runs of a comparison: order, settings, resuming, and the same table after a kill."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainage.anatomy.grid import MODEL_GRID
from brainage.benchmark_config import BenchmarkRecipe
from brainage.config import parse_recipe
from brainage.data.datasets import AgedScan
from brainage.errors import ConfigError, InputError
from brainage.evaluate.benchmark import compare, read_runs
from brainage.models.brain_age import TokenLayout
from brainage.train import benchmark as module
from brainage.train.benchmark import Run, execute, is_finished, plan, recipe_fingerprint
from brainage.train.benchmark_data import BenchmarkData, prepare
from brainage.train.benchmark_networks import count_flops, layout_of, shuffled_regions
from brainage.train.benchmark_tasks import Copies, TransformerTask
from brainage.train.cohort import Cohort
from brainage.train.cross_validate import new_model
from brainage.train.devices import start_fabric
from brainage.train.probe import linear_probe

SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "pool": 4,
    "copies": 2,
    "seeds": [0, 1],
    "model": {"patch": 4, "dim": 16, "depth": 1, "num_heads": 2, "hidden_dim": 8, "moe_blocks": [0]}
    | {"rank": 1, "free_experts": 1},
    "train": {"folds": 2, "epochs": 3, "batch_size": 2, "ema": 0.5, "precision": "32-true"}
    | {"accelerator": "cpu", "checkpoint_every": 1},
    "contestants": {
        "ermoe_ba": {},
        "vmoe": {"model": {"router": "vmoe", "balancing": 0.01}},
        "sfcn": {"kind": "sfcn", "sfcn": {"channels": [2, 2], "last": 2}, "train": {"epochs": 1}},
        "ridge_regions": {"kind": "region_ridge"},
        "mean": {"kind": "mean"},
    },
}


def settings(**changed: Any) -> BenchmarkRecipe:
    return parse_recipe(SETTINGS | changed, BenchmarkRecipe)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """Brains that darken with age."""
    generator = torch.Generator().manual_seed(0)
    scans = []
    for number, age in enumerate(torch.linspace(20, 80, 8).tolist()):
        noise = 0.02 * torch.randn(1, *MODEL_GRID.shape, generator=generator)
        scans.append(AgedScan(f"sub-{number}", "", age, (1 - (age - 20) / 120 + noise).half()))
    return Cohort(tuple(scans), "f" * 64, "brains")


@pytest.fixture(scope="module")
def data(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> BenchmarkData:
    return prepare(cohort, settings(), [0, 1], tmp_path_factory.mktemp("material"))


def test_the_first_seed_of_all_comes_first() -> None:
    runs = plan(settings())
    # Two folds: three networks and two closed forms, then the networks again.
    assert len(runs) == 5 * 2 + 3 * 2
    assert [run.name for run in runs[:4]] == ["ermoe_ba", "ermoe_ba", "vmoe", "vmoe"]
    assert {run.seed for run in runs[:10]} == {0}
    assert {run.name for run in runs[10:]} == {"ermoe_ba", "vmoe", "sfcn"}
    assert {run.name for run in plan(settings(), ["mean"])} == {"mean"}
    with pytest.raises(ConfigError, match="nobody"):
        plan(settings(), ["nobody"])


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"reference": "nobody"}, "reference"),
        ({"contestants": {"ermoe_ba": {"train": {"batch_size": 9}}}}, "batch_size"),
        ({"contestants": {"ermoe_ba": {"model": {"router": "best"}}}}, "router"),
        ({"contestants": {"ermoe_ba": {}, "../x": {}}}, "lower-case"),
        ({"seeds": [1, 1]}, "differ"),
    ],
)
def test_recipes_that_make_no_comparison(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        settings(**change)


def test_the_material_is_made_once_and_pooled(cohort: Cohort, data: BenchmarkData, tmp_path: Path) -> None:
    assert data.array("volumes").shape == (8, 20, 24, 20)
    assert data.copies(1).shape == (2, 8, 20, 24, 20)
    block = cohort.scans[3].volume[0, :4, 8:12, :4].float().mean()
    assert float(data.array("volumes")[3, 0, 2, 0]) == pytest.approx(float(block), abs=1e-3)
    assert not np.array_equal(data.copies(0)[0, 3], data.copies(1)[0, 3])
    again = prepare(cohort, settings(), [0], tmp_path)
    assert np.array_equal(again.copies(0), data.copies(0))
    written = (again.folder / "copies-0.npy").stat().st_mtime_ns
    prepare(cohort, settings(), [0], tmp_path)
    assert (again.folder / "copies-0.npy").stat().st_mtime_ns == written


def test_settings_and_fingerprints() -> None:
    run = Run("vmoe", 0, 1)
    own = recipe_fingerprint(settings(), run)
    assert own == recipe_fingerprint(settings(name="other", claim=0.1), run)
    assert own == recipe_fingerprint(settings(), Run("vmoe", 0, 0))
    assert own != recipe_fingerprint(settings(), Run("vmoe", 1, 1))
    assert own != recipe_fingerprint(settings(copies=3), run)
    # The same settings by another name are the same runs.
    contestants = SETTINGS["contestants"] | {"vmoe": SETTINGS["contestants"]["ermoe_ba"]}
    changed = settings(contestants=contestants)
    assert recipe_fingerprint(changed, run) == recipe_fingerprint(changed, Run("ermoe_ba", 0, 1)) != own


def table(out: Path) -> dict[str, Any]:
    runs = [run for run in plan(settings()) if is_finished(run, settings(), out)]
    frame = read_runs([run.path(out) for run in runs])
    labels = {name: name for name in settings().contestants}
    # What a clock says differs between runs.
    frame["seconds_per_scan"] = frame["seconds"] = 1.0
    return compare(frame, labels, 2, "ermoe_ba", 0.07, resamples=100)


def test_a_killed_comparison_gives_the_same_table(
    data: BenchmarkData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = plan(settings())
    for run in runs:
        assert execute(run, settings(), data, tmp_path / "whole")
    whole = table(tmp_path / "whole")
    assert [len(row["seeds"]) for row in whole["contestants"]] == [2, 2, 2, 1, 1]
    assert not list((tmp_path / "whole" / "working").rglob("*.pt"))

    other = tmp_path / "killed"
    for run in runs[:3]:
        execute(run, settings(), data, other)
    real, calls = module.write_json, []

    def killed(*_: Any) -> None:
        calls.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        execute(runs[3], settings(), data, other)
    assert calls
    assert not is_finished(runs[3], settings(), other)
    monkeypatch.setattr(module, "write_json", real)
    for run in runs:
        execute(run, settings(), data, other)
    assert table(other) == whole


def test_the_last_probe_learns_from_every_copy(data: BenchmarkData) -> None:
    recipe = settings(last_probe=True)
    rows = np.array([1, 3, 4, 6])
    ages = data.table["age"].to_numpy()[rows].tolist()
    train = recipe.train_of(recipe.contestants["vmoe"], 0)
    brain_age, layout = layout_of(recipe, recipe.contestants["vmoe"], 0)
    fabric = start_fabric(train)
    model = new_model(brain_age, layout, data.scans(rows))
    expected = copy.deepcopy(model)
    task = TransformerTask(model, data.scans(rows), train, Copies(data.copies(0), rows, ages, train), True)
    task.finish(model, fabric)
    whole = torch.from_numpy(np.array(data.array("volumes"))[rows]).float()[:, None]
    copies = [torch.from_numpy(np.array(one)[rows]).float()[:, None] for one in data.copies(0)]
    linear_probe(expected, ages, [[volumes] for volumes in (whole, whole.flip(2), *copies)], fabric)
    torch.testing.assert_close(model.head.weight_ND, expected.head.weight_ND, atol=1e-4, rtol=1e-3)
    # It is another run than the one without.
    run = Run("vmoe", 0, 0)
    assert recipe_fingerprint(recipe, run) != recipe_fingerprint(settings(), run)
    assert recipe_fingerprint(recipe, Run("sfcn", 0, 0)) == recipe_fingerprint(settings(), Run("sfcn", 0, 0))


def test_results_of_other_settings_are_refused(data: BenchmarkData, tmp_path: Path) -> None:
    run = Run("mean", 0, 0)
    execute(run, settings(), data, tmp_path)
    assert is_finished(run, settings(), tmp_path, data.fingerprint)
    with pytest.raises(InputError, match="other scans"):
        is_finished(run, settings(), tmp_path, "0" * 16)
    content = json.loads(run.path(tmp_path).read_text("utf-8"))
    assert [scan["predicted"] for scan in content["scans"]] == pytest.approx(
        [data.table.loc[data.table["fold"] != 0, "age"].mean()] * 4
    )
    run.path(tmp_path).write_text("{")
    with pytest.raises(InputError, match="damaged"):
        is_finished(run, settings(), tmp_path)


def test_a_run_that_another_process_is_at_is_left_to_it(data: BenchmarkData, tmp_path: Path) -> None:
    from brainage.preprocess.lock import locked

    run = Run("mean", 0, 0)
    with locked(tmp_path / "working" / "mean" / "seed-0_fold-0"):
        assert not execute(run, settings(), data, tmp_path)
    assert execute(run, settings(), data, tmp_path)


def test_shuffled_regions_keep_the_experts_sizes() -> None:
    prior = torch.tensor([[0.5, 0.0, 1.0], [0.5, 0.0, 1.0], [0.0, 0.7, 1.0], [0.0, 0.2, 1.0]] * 4)
    layout = TokenLayout(torch.arange(16), prior, ("front", "back", "free 1"), (2, 2, 4))
    dealt = shuffled_regions(layout, 1)
    assert torch.equal(dealt.prior_NE.sort(0).values, prior.sort(0).values)
    assert not torch.equal(dealt.prior_NE, prior)
    # Tokens keep their pair of priors: which experts share tokens stays as it was.
    assert {tuple(row) for row in dealt.prior_NE.tolist()} == {tuple(row) for row in prior.tolist()}


def test_flops_of_one_scan_more() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(5, 3))

        def forward(self, volume: torch.Tensor) -> torch.Tensor:
            made_once = self.weight @ self.weight.mT
            return volume.flatten(1) @ (made_once @ self.weight)

    # A row of 5 times 5 x 3: 15 multiply-adds. The products of weights alone are not a scan's.
    assert count_flops(Model(), torch.ones(1, 1, 1, 1, 5)) == 30
