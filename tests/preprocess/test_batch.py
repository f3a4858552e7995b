from pathlib import Path

import pandas as pd
import pytest

from brainage.config import PreprocessRecipe
from brainage.data.cohort import Problem, scan_of
from brainage.preprocess import batch
from brainage.preprocess.batch import preprocess_row, problem_row, relative, write_status
from brainage.preprocess.chain import QualityError

RECIPE = PreprocessRecipe()


def read(path):
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(28, "No space left on device", "/secret/folder/x"),
            "unexpected error: No space left on device",
        ),
        (ZeroDivisionError("a\nb"), "unexpected error: a b"),
        (KeyError(), "unexpected error: KeyError"),
    ],
)
def test_any_error_becomes_a_row(monkeypatch, tmp_path, error, words):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(batch, "preprocess_scan", fail)
    row = preprocess_row(scan_of("folder/sub-1_T1w.nii.gz"), tmp_path, RECIPE)
    assert row["status"] == "failed"
    assert row["message"] == f"sub-1_T1w.nii.gz: {words}"


def test_figures_of_a_failed_scan_are_kept(monkeypatch, tmp_path):
    def fail(*arguments):
        error = QualityError("x.nii", "y", "z", "w")
        error.qc = {"registration_ncc": 0.1}
        raise error

    monkeypatch.setattr(batch, "preprocess_scan", fail)
    assert preprocess_row(scan_of("sub-1_T1w.nii.gz"), tmp_path, RECIPE)["registration_ncc"] == "0.1"


def test_the_status_table(tmp_path):
    root, table = tmp_path / "bids", tmp_path / "out" / "status.tsv"
    good = batch._row(scan_of(root / "sub-2" / "anat" / "sub-2_T1w.nii.gz")) | {
        "status": "ok",
        "scale": "1.2",
    }
    bad = problem_row(Problem(root / "sub-1" / "anat" / "odd.nii", "a\tsentence\nin two lines"))
    write_status(table, [good, bad], root)
    rows = read(table)
    assert list(rows["path"]) == ["sub-1/anat/odd.nii", "sub-2/anat/sub-2_T1w.nii.gz"]
    assert list(rows["status"]) == ["failed", "ok"]
    assert list(rows["scale"]) == ["n/a", "1.2"]
    assert rows["message"][0] == "a sentence in two lines"
    assert str(tmp_path) not in table.read_text("utf-8")


def test_paths_in_tables_start_at_the_input_and_are_never_empty(tmp_path):
    assert relative(tmp_path / "sub-1" / "a.nii", tmp_path) == "sub-1/a.nii"
    assert relative(Path("elsewhere", "a.nii"), tmp_path) == "a.nii"
    # A DICOM folder may be the input itself.
    assert relative(tmp_path / "dicom", tmp_path / "dicom") == "dicom"


def test_rows_about_other_scans_are_kept_on_request(tmp_path):
    rows = [batch._row(scan_of(Path(f"sub-{index}_T1w.nii.gz"))) for index in range(3)]
    table = tmp_path / "status.tsv"
    write_status(table, rows[:2], tmp_path)
    write_status(table, [rows[1] | {"status": "ok"}, rows[2]], tmp_path, keep_others=True)
    assert list(read(table)["status"]) == ["n/a", "ok", "n/a"]
    write_status(table, rows[2:], tmp_path)
    assert list(read(table)["participant_id"]) == ["sub-2"]


@pytest.mark.parametrize("content", ["", "no table", "\x00\x01"])
def test_a_damaged_status_table_is_written_anew(tmp_path, content):
    table = tmp_path / "status.tsv"
    table.write_text(content)
    write_status(table, [batch._row(scan_of("sub-1_T1w.nii.gz"))], tmp_path, keep_others=True)
    assert list(read(table)["participant_id"]) == ["sub-1"]
