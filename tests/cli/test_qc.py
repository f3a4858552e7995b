import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from brainage.anatomy.grid import MODEL_GRID
from brainage.cli.main import app
from brainage.data.cohort import scan_of
from brainage.preprocess.outputs import write_outputs
from brainage.preprocess.template import template_tissues


@pytest.fixture
def run(tmp_path):
    """A BIDS folder of two scans, and what preprocessing left: one is done, one was refused."""
    brain = template_tissues()[0].astype(np.float32)
    rows = []
    for name in ("sub-01", "sub-02"):
        path = tmp_path / "bids" / name / "anat" / f"{name}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        # Stored with the subject's left and right the other way round, as many are.
        image = nib.Nifti1Image(
            brain[::-1] * 100 + np.arange(80, dtype=np.float32), MODEL_GRID.affine @ np.diag([-1, 1, 1, 1])
        )
        image.header.set_xyzt_units("mm")
        image.set_sform(image.affine, 1)
        nib.save(image, path)
        rows.append({"participant_id": name, "session_id": "n/a", "path": f"{name}/anat/{path.name}"})
    facts = {
        "Sources": [rows[0]["path"]],
        "NativeToMNI": np.eye(4).tolist(),
        "NativeShape": list(brain.shape),
        "NativeAffine": (MODEL_GRID.affine @ np.diag([-1, 1, 1, 1])).tolist(),
        "Stripped": True,
        "QC": {"cjv": 0.5, "left_right": 1.0},
        "Warnings": ["units unknown", "grey and white matter overlap (cjv 0.5)"],
        "Fingerprint": "0",
    }
    scan = scan_of(tmp_path / "bids" / rows[0]["path"])
    write_outputs(scan, tmp_path / "pre", brain * 0.7, brain[::-1] > 0, facts)
    rows[0] |= {"status": "warning", "message": "units unknown; grey and white matter overlap (cjv 0.5)"}
    rows[1] |= {"status": "failed", "message": "found <b>no brain</b>", "cjv": "0.9"}
    pd.DataFrame(rows).fillna("n/a").to_csv(tmp_path / "pre" / "status.tsv", sep="\t", index=False)
    return tmp_path


def invoke(*arguments):
    result = CliRunner().invoke(app, ["qc", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


def test_a_page_and_pictures_with_the_raw_scans(run):
    result = invoke(run / "pre", "-o", run / "out" / "page.html", "--raw", run / "bids")
    assert "page.html" in result.stdout
    page = (run / "out" / "page.html").read_text("utf-8")
    assert page.index("sub-02_T1w") < page.index("sub-01")
    assert "&lt;b&gt;no brain" in page
    assert page.count("data:image/jpeg") == 2
    pictures = sorted(path.name for path in (run / "out" / "page_pictures").iterdir())
    assert pictures == ["sub-01_qc.png", "sub-02_T1w.nii.gz_qc.png"]
    assert all(f'href="page_pictures/{name}"' in page for name in pictures)
    assert all((run / "out" / "page_pictures" / name).stat().st_size < 200_000 for name in pictures)


def test_the_scan_that_was_preprocessed_by_itself_is_found(run):
    table = run / "pre" / "status.tsv"
    table.write_text(table.read_text("utf-8").replace("sub-01/anat/", ""), encoding="utf-8")
    file = run / "bids" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    invoke(run / "pre", "-o", run / "one.html", "--raw", file)
    invoke(run / "pre", "-o", run / "none.html")
    one, none = (run / f"{name}_pictures" / "sub-01_qc.png" for name in ("one", "none"))
    # The picture with the scan has a row of slices more.
    assert one.stat().st_size > 1.5 * none.stat().st_size


def test_without_raw_scans_or_pictures(run):
    invoke(run / "pre", "-o", run / "page.html", "--no-pictures")
    page = (run / "page.html").read_text("utf-8")
    assert page.count("data:image/jpeg") == 1
    assert not (run / "page_pictures").exists()


def test_other_limits_give_other_verdicts(run):
    (run / "recipe.yaml").write_text("qc: {cjv: {good: [null, 0.6], usable: [null, null]}}\n")
    invoke(run / "pre", "-o", run / "page.html", "--no-pictures", "--recipe", run / "recipe.yaml")
    page = (run / "page.html").read_text("utf-8")
    assert "<p>units unknown</p>" in page
    (run / "recipe.yaml").write_text("qc: {cjv: {good: [null, 0.3], usable: [null, 0.4]}}\n")
    invoke(run / "pre", "-o", run / "page.html", "--no-pictures", "--recipe", run / "recipe.yaml")
    assert "<b>2</b> refused" in (run / "page.html").read_text("utf-8")


def test_a_scan_that_is_gone_costs_only_its_picture(run):
    (run / "bids" / "sub-01" / "anat" / "sub-01_T1w.nii.gz").write_bytes(b"no image")
    invoke(run / "pre", "-o", run / "page.html", "--raw", run / "bids")
    assert (run / "page_pictures" / "sub-01_qc.png").exists()
    next((run / "pre").rglob("*preproc_T1w.nii.gz")).write_bytes(b"no image")
    result = invoke(run / "pre", "-o", run / "page.html", "--raw", run / "bids")
    assert "no picture" in result.stderr
    assert "sub-01" in (run / "page.html").read_text("utf-8")


def test_a_folder_that_is_no_run(tmp_path):
    result = CliRunner().invoke(app, ["qc", str(tmp_path), "-o", str(tmp_path / "page.html")])
    assert result.exit_code == 1
    assert "no status.tsv" in result.stderr
