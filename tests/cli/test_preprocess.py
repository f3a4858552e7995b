import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from typer.testing import CliRunner

from brainage.cli.main import app
from brainage.preprocess import batch


@pytest.fixture(scope="module")
def brain():
    image = load_mni152_template(resolution=2)
    inside = np.asarray(load_mni152_brain_mask(resolution=2).dataobj) > 0
    return nib.Nifti1Image((image.get_fdata() * inside * 250).astype(np.uint8), image.affine)


@pytest.fixture
def cohort(tmp_path, brain):
    """One good scan, one truncated, one with an odd name."""
    root = tmp_path / "bids"
    for name in ("sub-01", "sub-02"):
        (root / name / "anat").mkdir(parents=True)
    brain.header.set_xyzt_units("mm")
    good = root / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    nib.save(brain, good)
    content = good.read_bytes()
    (root / "sub-02" / "anat" / "sub-02_T1w.nii.gz").write_bytes(content[: len(content) // 2])
    (root / "sub-02" / "anat" / "sub-0 2_T1w.nii.gz").write_bytes(content)
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t40\nsub-02\t50\n")
    (root / "participants.json").write_text("{}")
    return root


def invoke(*arguments):
    return CliRunner().invoke(app, ["preprocess", *map(str, arguments)])


def status(out):
    return pd.read_csv(out / "status.tsv", sep="\t", keep_default_na=False).set_index("path")


def test_one_bad_scan_among_good_ones(cohort, tmp_path):
    out = tmp_path / "out"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("n4_shrink_mm: 8\n")
    result = invoke(cohort, out, "--recipe", recipe, "--jobs", "1")
    assert result.exit_code == 3, result.output
    rows = status(out)
    assert dict(rows["status"]) == {
        "sub-01/anat/sub-01_T1w.nii.gz": rows["status"]["sub-01/anat/sub-01_T1w.nii.gz"],
        "sub-02/anat/sub-0 2_T1w.nii.gz": "failed",
        "sub-02/anat/sub-02_T1w.nii.gz": "failed",
    }
    assert "damaged" in rows["message"]["sub-02/anat/sub-02_T1w.nii.gz"]
    assert "1 of 3 scans preprocessed" in result.stdout
    assert "Preprocessing: 3 of 3" in result.stderr
    assert json.loads((out / "dataset_description.json").read_text("utf-8"))["DatasetType"] == "derivative"
    for name in ("participants.tsv", "participants.json"):
        assert (out / name).read_text("utf-8") == (cohort / name).read_text("utf-8")
    written = sorted(path.name for path in (out / "sub-01").rglob("*.*"))
    assert len(written) == 5
    assert list(out.rglob(".partial*")) == []
    # Mend the bad one, run again: the good one is not done anew.
    before = {path: path.stat().st_mtime_ns for path in (out / "sub-01").rglob("*.*")}
    (cohort / "sub-02" / "anat" / "sub-0 2_T1w.nii.gz").unlink()
    shutil.rmtree(cohort / "sub-02")
    result = invoke(cohort, out, "--recipe", recipe, "--jobs", "1")
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in before} == before
    again = status(out)
    assert again["status"]["sub-01/anat/sub-01_T1w.nii.gz"] == rows["status"]["sub-01/anat/sub-01_T1w.nii.gz"]
    assert again["status"]["sub-02"] == "missing"
    assert "(done before)" in result.stdout
    assert "1 of 1 scans preprocessed (1 before)" in result.stdout


@pytest.fixture
def pretend(monkeypatch):
    """Preprocessing that does nothing; remembers what it was asked for."""
    asked = []

    def row(scan, out_dir, recipe, force=False):
        asked.append((scan.participant_id, recipe.brain_extraction, force))
        return batch._row(scan) | {"status": "ok"}

    monkeypatch.setattr(batch, "preprocess_row", row)
    return asked


def test_options_reach_the_chain(cohort, tmp_path, pretend):
    out = tmp_path / "out"
    options = ["--brain-extraction", "never", "--force", "--jobs", "1"]
    result = invoke(cohort, out, "--participant-label", "01", *options)
    assert result.exit_code == 0, result.output
    assert pretend == [("sub-01", "never", True)]
    # Rows about other participants stay.
    invoke(cohort, out, "--participant-label", "sub-02", "--jobs", "1")
    assert len(status(out)) == 3


def test_all_failed(cohort, tmp_path):
    result = invoke(cohort, tmp_path / "out", "--participant-label", "02")
    assert result.exit_code == 1
    assert list(status(tmp_path / "out")["status"]) == ["failed", "failed"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--participant-label", "99"], 2, "must have a T1w scan"),
        (["--brain-extraction", "sometimes"], 2, ""),
        (["--jobs", "0"], 2, ""),
        (["--recipe", "absent.yaml"], 1, "absent.yaml: found no such file"),
    ],
)
def test_wrong_usage(cohort, tmp_path, arguments, code, words):
    result = invoke(cohort, tmp_path / "out", *arguments)
    assert result.exit_code == code
    assert words in result.stderr
    assert not (tmp_path / "out" / "status.tsv").exists()


def test_folders_that_cannot_be(cohort, tmp_path):
    assert invoke(cohort, cohort).exit_code == 2
    result = invoke(tmp_path / "absent", tmp_path / "out")
    assert result.exit_code == 1
    assert "no such file or folder" in result.stderr


def test_an_interrupted_run_keeps_what_is_done(cohort, tmp_path, monkeypatch):
    def row(scan, out_dir, recipe, force=False):
        if scan.participant_id == "sub-02":
            raise KeyboardInterrupt
        return batch._row(scan) | {"status": "ok"}

    monkeypatch.setattr(batch, "preprocess_row", row)
    result = invoke(cohort, tmp_path / "out", "--jobs", "1")
    assert result.exit_code not in (0, 3)
    assert status(tmp_path / "out")["status"]["sub-01/anat/sub-01_T1w.nii.gz"] == "ok"


def test_a_dry_run_names_who_has_no_scan_and_whose_age_is_none(cohort, tmp_path):
    table = "participant_id\tage\nsub-01\t89+\nsub-02\t50\nsub-03\t60\n"
    (cohort / "participants.tsv").write_text(table)
    result = invoke(cohort, tmp_path / "out", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "sub-03: in participants.tsv but without a T1w scan" in result.stdout
    assert "sub-01 '89+'" in result.stderr
    one = invoke(cohort, tmp_path / "out", "--dry-run", "--participant-label", "01")
    assert "sub-03" not in one.stdout
