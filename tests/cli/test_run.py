"""``brainage run`` as a BIDS App, and other inputs of ``preprocess``."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from typer.testing import CliRunner

from brainage.cli.main import app
from brainage.models.weights import TrainedModel, save_trained
from brainage.preprocess.load import LoadScand


@pytest.fixture(scope="module")
def brain() -> nib.Nifti1Image:
    image = load_mni152_template(resolution=2)
    inside = np.asarray(load_mni152_brain_mask(resolution=2).dataobj) > 0
    brain = nib.Nifti1Image((image.get_fdata() * inside * 800).astype(np.int16), image.affine)
    brain.header.set_xyzt_units("mm")
    return brain


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: TrainedModel) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_trained(path, tiny_model)
    return path


def invoke(*arguments: object) -> object:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_participants_then_the_group(brain, model, tmp_path):
    bids, out = tmp_path / "bids", tmp_path / "out"
    for name in ("sub-01", "sub-02"):
        (bids / name / "anat").mkdir(parents=True)
    nib.save(brain, bids / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    (bids / "sub-02" / "anat" / "sub-02_T1w.nii.gz").write_bytes(b"nothing")
    (bids / "participants.tsv").write_text("participant_id\tage\nsub-01\t40\nsub-02\t50\n")
    options = ("--model", model, "--jobs", 1)

    result = invoke("run", bids, out, "participant", "--dry-run", *options)
    assert result.exit_code == 0, result.output
    assert "2 to do, 0 done" in result.stdout
    assert not out.exists()

    result = invoke("run", bids, out, "group")
    assert result.exit_code == 1
    assert "run it at that level first" in result.stderr

    result = invoke("run", bids, out, "participant", *options)
    assert result.exit_code == 3, result.output
    ages = pd.read_csv(out / "brain_ages.csv", keep_default_na=False)
    assert ages["participant_id"].tolist() == ["sub-01", "sub-02"]
    assert ages["path"].tolist()[0] == "sub-01/anat/sub-01_T1w.nii.gz"
    assert ages["status"].tolist()[1] == "failed"
    assert list((out / "maps" / "sub-01").glob("*_mosaic.png"))
    # The table's paths start at the BIDS folder, wherever the program was called.
    assert "No viewer" not in result.stderr
    pages = {path.name: path.read_text("utf-8") for path in (out / "reports").glob("*.html")}
    assert len(pages) == 3

    for path in (out / "reports").glob("*.html"):
        path.unlink()
    result = invoke("run", bids, out, "participant", "--reports-only")
    assert result.exit_code == 0, result.output
    assert list((out / "reports").glob("*.html"))

    result = invoke("run", bids, out, "group")
    assert result.exit_code == 0, result.output
    assert (out / "group.html").stat().st_size > 1000
    assert json.loads((out / "group_evaluation.json").read_text())["n_scans"] == 1
    assert str(tmp_path) not in (out / "brain_ages.csv").read_text() + (out / "status.tsv").read_text()


def test_pages_alone_need_no_scans(model, tmp_path):
    (tmp_path / "bids").mkdir()
    result = invoke("run", tmp_path / "bids", tmp_path / "out", "participant", "--reports-only")
    assert result.exit_code == 1
    assert "run it at that level first" in result.stderr
    for level, option in (("group", ()), ("participant", ("--reports-only",))):
        result = invoke("run", tmp_path / "bids", tmp_path / "out", level, "--dry-run", *option)
        assert result.exit_code == 2
        assert "--dry-run" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_dicom_series_is_read_as_its_nifti_and_leaves_no_name(brain, tmp_path):
    spec = importlib.util.spec_from_file_location(
        "dicom_series", Path(__file__).parent.parent / "data" / "dicom_series.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # DICOM's axes are LPS: an axial stack grows to the left, the back and upwards.
    turned = brain.as_reoriented(np.array([[0, -1], [1, -1], [2, 1]]))
    folder, out = tmp_path / "dicom", tmp_path / "out"
    values = np.asarray(turned.dataobj)
    module.write_series(folder, values, cosines="1\\0\\0\\0\\1\\0", spacing=(2.0, 2.0, 2.0))
    (tmp_path / "recipe.yaml").write_text("n4_shrink_mm: 8\n")
    result = invoke("preprocess", folder, out, "--jobs", 1, "--recipe", tmp_path / "recipe.yaml")
    assert result.exit_code == 0, result.output
    assert list(out.rglob("*desc-preproc_T1w.nii.gz"))
    for path in out.rglob("*"):
        if path.is_file():
            assert b"Secret" not in path.read_bytes()
            assert b"MRN12345" not in path.read_bytes()
            assert "Secret" not in path.name
    affine = turned.affine.copy()
    affine[:3, 3] = [10, -20, 30]
    same = nib.Nifti1Image(values, affine)
    same.header.set_xyzt_units("mm")
    nib.save(same, tmp_path / "sub-same_T1w.nii.gz")
    loaded = [LoadScand()({"image": path})["image"] for path in (folder, tmp_path / "sub-same_T1w.nii.gz")]
    np.testing.assert_array_equal(loaded[0].numpy(), loaded[1].numpy())
    np.testing.assert_allclose(loaded[0].affine.numpy(), loaded[1].affine.numpy(), atol=1e-4)
