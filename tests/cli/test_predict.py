"""``brainage predict`` from files on disk: one row for each input, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from typer.testing import CliRunner

from brainage.anatomy.grid import SPACE
from brainage.cli.main import app
from brainage.models.weights import TrainedModel, save_trained


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stripped 2 mm brain in an odd orientation, under a BIDS name."""
    template, mask = load_mni152_template(resolution=2), load_mni152_brain_mask(resolution=2)
    data = (template.get_fdata() * (mask.get_fdata() > 0) * 800).astype(np.float32)
    image = nib.Nifti1Image(data, template.affine).as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    image.header.set_xyzt_units("mm")
    path = tmp_path_factory.mktemp("raw") / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    nib.save(image, path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: TrainedModel) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_trained(path, tiny_model)
    return path


def test_good_and_bad_scans_in_one_call(brain: Path, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "sub-02_T1w.nii.gz"
    broken.write_bytes(brain.read_bytes()[:5000])
    missing = tmp_path / "sub-03_T1w.nii.gz"
    ages, maps, kept = tmp_path / "out" / "ages.csv", tmp_path / "maps", tmp_path / "kept"
    scans = [str(broken), str(brain), str(missing)]
    options = ["-o", str(ages), "--maps", str(maps), "--model", str(model), "--derivatives", str(kept)]
    result = CliRunner().invoke(app, ["predict", *scans, *options])
    assert result.exit_code == 3, result.output

    table = pd.read_csv(ages, keep_default_na=False, dtype=str)
    first = ["participant_id", "session_id", "path", "predicted_age", "status", "message"]
    assert table.columns[:6].tolist() == first
    assert table["path"].tolist() == scans
    assert table["participant_id"].tolist() == ["sub-02", "sub-01", "sub-03"]
    assert table["status"].tolist()[::2] == ["failed", "failed"]
    assert table["predicted_age"].tolist()[::2] == ["", ""]
    assert table.loc[0, "message"].startswith("sub-02_T1w.nii.gz: found ")
    good = table.loc[1]
    assert good["status"] in ("ok", "warning")
    assert good["session_id"] == "ses-2"
    assert float(good["interval_low"]) < float(good["predicted_age"]) < float(good["interval_high"])
    assert str(tmp_path) not in "".join(table["message"])

    prefix = maps / "sub-01_ses-2" / "sub-01_ses-2"
    scan = nib.load(brain)
    for name in ("contribution", "expert", "alignment"):
        native = nib.load(f"{prefix}_space-T1w_desc-{name}_map.nii.gz")
        assert native.shape == scan.shape
        np.testing.assert_allclose(native.affine, scan.affine, atol=1e-4)
        assert nib.load(f"{prefix}_space-{SPACE}_desc-{name}_map.nii.gz").shape == (80, 96, 80)
    regions = pd.read_csv(f"{prefix}_regions.tsv", sep="\t")
    assert abs(50 + regions["contribution_years"].sum() - float(good["predicted_age"])) < 0.01
    assert Path(f"{prefix}_mosaic.png").stat().st_size > 50_000
    assert not list(tmp_path.rglob(".partial-*"))

    # The kept volume gives the same age without being preprocessed again, and all maps where they are wanted.
    again = tmp_path / "again.csv"
    options = ["-o", str(again), "--model", str(model), "--maps", str(tmp_path / "all"), "--all-maps"]
    result = CliRunner().invoke(app, ["predict", str(kept), *options])
    assert result.exit_code == 0, result.output
    assert pd.read_csv(again)["predicted_age"].tolist() == [float(good["predicted_age"])]
    shares = "sub-01_ses-2_space-T1w_desc-shares_map.nii.gz"
    assert (tmp_path / "all" / "sub-01_ses-2" / shares).is_file()
    assert not prefix.with_name(shares).exists()


def test_a_scan_in_metres_with_a_fourth_axis_is_drawn(brain: Path, model: Path, tmp_path: Path) -> None:
    image = nib.load(brain)
    affine = image.affine.copy()
    affine[:3] /= 1000
    odd = nib.Nifti1Image(np.asarray(image.dataobj)[..., None], affine)
    odd.header.set_xyzt_units("meter")
    path = tmp_path / "sub-04_T1w.nii.gz"
    nib.save(odd, path)
    maps, ages = tmp_path / "maps", tmp_path / "ages.csv"
    result = CliRunner().invoke(
        app, ["predict", str(path), "-o", str(ages), "--maps", str(maps), "--model", str(model)]
    )
    assert result.exit_code == 0, result.output
    assert "mosaic" not in result.output
    assert (maps / "sub-04" / "sub-04_mosaic.png").stat().st_size > 50_000


def test_a_picture_that_fails_costs_no_age(
    brain: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "secret"))

    monkeypatch.setattr("brainage.report.mosaic.save_mosaic", full)
    ages = tmp_path / "ages.csv"
    options = ["-o", str(ages), "--maps", str(tmp_path / "maps"), "--model", str(model)]
    result = CliRunner().invoke(app, ["predict", str(brain), *options])
    assert result.exit_code == 0, result.output
    (row,) = pd.read_csv(ages).to_dict("records")
    assert row["status"] == "warning"
    assert row["message"].endswith("no mosaic could be drawn: No space left on device")
    assert row["predicted_age"] > -100


def test_all_scans_bad(model: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["predict", str(tmp_path / "no.nii.gz"), "-o", str(tmp_path / "ages.csv"), "--model", str(model)]
    )
    assert result.exit_code == 1
    assert pd.read_csv(tmp_path / "ages.csv")["status"].tolist() == ["failed"]


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    fake = tmp_path / "model.safetensors"
    fake.write_text(json.dumps({"weights": 1}))
    result = CliRunner().invoke(
        app, ["predict", "scan.nii.gz", "-o", str(tmp_path / "ages.csv"), "--model", str(fake)]
    )
    assert result.exit_code == 1
    assert "model.safetensors: found no safetensors file" in result.output
    assert not (tmp_path / "ages.csv").exists()


def test_all_maps_need_a_folder(model: Path, tmp_path: Path) -> None:
    command = [
        "predict",
        "scan.nii.gz",
        "-o",
        str(tmp_path / "ages.csv"),
        "--model",
        str(model),
        "--all-maps",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "--maps" in result.output
