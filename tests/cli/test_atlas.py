import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from brainage.anatomy.atlas import built_in
from brainage.anatomy.grid import MODEL_GRID
from brainage.cli.main import app


def invoke(*arguments):
    return CliRunner().invoke(app, ["atlas", *map(str, arguments)], env={"COLUMNS": "120"})


def test_list():
    result = invoke()
    assert result.exit_code == 0, result.output
    assert "brainage (built in)" in result.stdout
    assert "28" in result.stdout


def test_show_names_every_region_with_its_volume():
    result = invoke("show")
    assert result.exit_code == 0, result.output
    for name in built_in().regions["name"]:
        assert name in result.stdout
    assert "not for volumetry" in result.stdout


@pytest.fixture
def own(tmp_path):
    labels = np.zeros(MODEL_GRID.shape, np.uint8)
    labels[20:30, 40:50, 40:50], labels[50:60, 40:50, 40:50] = 1, 2
    path = tmp_path / "own_dseg.nii.gz"
    nib.save(nib.Nifti1Image(labels, MODEL_GRID.affine), path)
    path.with_name("own_dseg.tsv").write_text("index\tname\n1\tspot_L\n2\tspot_R\n")
    return path


def test_show_an_atlas_of_ones_own_and_draw_it(own, tmp_path):
    result = invoke("show", "--atlas", own, "--png", tmp_path / "own.png")
    assert result.exit_code == 0, result.output
    assert "spot_L" in result.stdout
    assert "8.0" in result.stdout
    assert (tmp_path / "own.png").read_bytes().startswith(b"\x89PNG")


def test_what_does_not_fit_is_one_sentence(own):
    own.with_name("own_dseg.tsv").write_text("index\tname\n1\tspot_R\n2\tspot_L\n")
    result = invoke("show", "--atlas", own)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: own_dseg.nii.gz: found 100 % of the volume")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("show", "--table", "a.tsv"), ("list", "--atlas", "a.nii"), ("draw",)])
def test_usage_errors(arguments):
    assert invoke(*arguments).exit_code == 2
