"""``brainage benchmark`` on a simulated cohort, through the program."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from brainage.anatomy.grid import MODEL_GRID
from brainage.benchmark_config import BenchmarkRecipe
from brainage.cli.main import app
from brainage.config import PreprocessRecipe, load_recipe
from brainage.preprocess.chain import fingerprint

VOLUME = "space-MNI152NLin2009aSym_res-2_desc-preproc_T1w"


@pytest.fixture
def preprocessed(tmp_path: Path) -> Path:
    """What ``brainage preprocess`` leaves of eight brains that darken with age, as far as it is read."""
    rng = np.random.default_rng(0)
    ages = np.linspace(20, 80, 8)
    identity = np.eye(4).tolist()
    for number, age in enumerate(ages):
        folder = tmp_path / "pre" / f"sub-{number}" / "anat"
        folder.mkdir(parents=True)
        volume = 1 - (age - 20) / 120 + 0.02 * rng.normal(size=MODEL_GRID.shape)
        image = nib.Nifti1Image(volume.astype(np.float32), MODEL_GRID.affine)
        nib.save(image, folder / f"sub-{number}_{VOLUME}.nii.gz")
        facts = {"ParticipantId": f"sub-{number}", "SessionId": "", "Mask": "mask.nii.gz"}
        facts |= {"NativeToMNI": identity, "NativeShape": [1, 1, 1], "NativeAffine": identity}
        facts |= {"Stripped": False, "QC": {}, "Warnings": [], "Fingerprint": fingerprint(PreprocessRecipe())}
        (folder / f"sub-{number}_{VOLUME}.json").write_text(json.dumps(facts))
    rows = [f"sub-{number}\t{age:.1f}" for number, age in enumerate(ages)]
    (tmp_path / "pre" / "participants.tsv").write_text("participant_id\tage\n" + "\n".join(rows) + "\n")
    return tmp_path / "pre"


def test_a_comparison_from_end_to_end(preprocessed: Path, tmp_path: Path) -> None:
    content = {
        "name": "tiny",
        "pool": 4,
        "copies": 1,
        "seeds": [0],
        "claim": 0.07,
        "model": {"patch": 4, "dim": 16, "depth": 1, "num_heads": 2, "hidden_dim": 8, "moe_blocks": [0]}
        | {"rank": 1, "free_experts": 1},
        "train": {"folds": 2, "epochs": 1, "batch_size": 2, "precision": "32-true", "accelerator": "cpu"},
        "contestants": {"ermoe_ba": {}, "soft": {"model": {"router": "soft"}}, "mean": {"kind": "mean"}},
    }
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump(content))

    def invoke(*options: str) -> str:
        result = CliRunner().invoke(app, ["benchmark", str(recipe), "-o", str(out), *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "6 of 6 runs are left" in invoke("--dry-run")
    assert not out.exists()
    first = invoke("--data", str(preprocessed), "--only", "mean")
    assert "mean" in first
    assert "ermoe_ba (0 runs)" in first
    whole = invoke("--data", str(preprocessed), "--json", str(tmp_path / "kept.json"))
    assert "The claim that ermoe_ba errs at least 7% less" in whole
    assert invoke("--finished") == whole == (out / "benchmark.md").read_text("utf-8")
    result = json.loads((tmp_path / "kept.json").read_text("utf-8"))
    assert result["n_subjects"] == 8
    rows = {row["contestant"]: row for row in result["contestants"]}
    assert rows["ermoe_ba"]["gini"] is not None
    assert rows["soft"]["gini"] is None
    assert "0 of 6 runs are left" in invoke("--dry-run")
    assert "2 finished runs" in invoke("--dry-run")


def test_without_data_no_runs_are_made(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: x\ncontestants: {ermoe_ba: {}}\n")
    result = CliRunner().invoke(app, ["benchmark", str(recipe), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2


@pytest.mark.parametrize("name", ["benchmark_brain_age", "benchmark_brain_age_2mm", "ablations_brain_age"])
def test_shipped_recipes(repository: Path, name: str) -> None:
    recipe = load_recipe(repository / "pipelines" / f"{name}.yaml", BenchmarkRecipe)
    assert recipe.include == {"cdr": 0}
    assert len(recipe.contestants) >= 5


def test_benchmark_and_ablations_share_their_reference(repository: Path) -> None:
    from brainage.train.benchmark import Run, recipe_fingerprint

    recipes = [
        load_recipe(repository / "pipelines" / f"{name}.yaml", BenchmarkRecipe)
        for name in ("benchmark_brain_age", "ablations_brain_age")
    ]
    first, second = (recipe_fingerprint(recipe, Run("ermoe_ba", 0, 0)) for recipe in recipes)
    assert first == second
