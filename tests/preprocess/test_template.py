"""The shipped arrays of the template against their source."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest

from brainage.anatomy.grid import MODEL_GRID
from brainage.preprocess import template
from brainage.preprocess.itk import array_from_image, tensor_from_image


@pytest.fixture(scope="module")
def build(repository):
    spec = spec_from_file_location("build", repository / "atlases" / "brain_template" / "build.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_brain_is_nilearns(build):
    values, affine = build.brain()
    shipped = template.template_brain()
    np.testing.assert_allclose(array_from_image(shipped), values, atol=1e-4)
    np.testing.assert_array_equal(tensor_from_image(shipped).affine.numpy(), affine)


def test_the_tissues_are_nilearns(build):
    made = build.tissues()
    inside, grey, white = template.template_tissues()
    assert inside.dtype == bool
    assert np.count_nonzero(inside != made[template.MASK_FILE]) < 10
    np.testing.assert_allclose(grey, made[template.GREY_FILE], atol=1e-4)
    np.testing.assert_allclose(white, made[template.WHITE_FILE], atol=1e-4)


def test_files_are_the_same_bytes_again(build, tmp_path, repository):
    folder = repository / template.FOLDER
    inside = template.template_tissues().inside.astype(np.uint8)
    build.write(inside, MODEL_GRID.affine, tmp_path / "mask.nii.gz")
    assert (tmp_path / "mask.nii.gz").read_bytes() == (folder / template.MASK_FILE).read_bytes()


def test_a_file_on_another_grid_is_refused(build, tmp_path, monkeypatch):
    build.write(np.zeros((8, 8, 8), np.uint8), MODEL_GRID.affine, tmp_path / template.MASK_FILE)
    monkeypatch.setattr(template, "resource", lambda _: tmp_path)
    with pytest.raises(ValueError, match="not on the model grid"):
        template.template_tissues.__wrapped__()
