"""Stages are switched off, or replaced by a user's own mask and transform."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from brainage.config import PreprocessRecipe, parse_recipe
from brainage.data.cohort import scan_of
from brainage.errors import ConfigError, InputError
from brainage.preprocess.chain import preprocess_chain, preprocess_scan
from brainage.preprocess.itk import transform_of
from brainage.preprocess.n4 import N4BiasCorrectiond
from brainage.preprocess.outputs import transform_of_volume
from brainage.preprocess.own_files import own_files, read_mask, read_transform, source_digest

MOVED = np.array([[0.95, 0.05, 0, 3], [-0.05, 1.02, 0.1, -4], [0, -0.1, 1.1, 5], [0, 0, 0, 1]])


def write_transform(path, matrix):
    """The ITK file of a (4, 4) RAS mm matrix that takes the scan to the template."""
    sitk.WriteTransform(transform_of(np.linalg.inv(matrix)), str(path))
    return path


@pytest.fixture
def scan(save, template):
    """The template's brain, its world moved so that ``MOVED`` leads back to the template, stored as LPS."""
    array = template.get_fdata(dtype=np.float32)
    image = nib.Nifti1Image(array, np.linalg.inv(MOVED) @ template.affine)
    image = image.as_reoriented(nib.orientations.axcodes2ornt("LPS"))
    path = save(np.asarray(image.dataobj), image.affine, "sub-01/anat/sub-01_T1w.nii.gz")
    mask = np.asarray(image.dataobj) > 500  # white matter and some of the cortex
    save(mask.astype(np.uint8), image.affine, "sub-01/anat/sub-01_desc-brain_mask.nii.gz")
    write_transform(path.with_name("sub-01_xfm.txt"), MOVED)
    return scan_of(path)


def test_own_mask_and_transform_take_the_place_of_stages(scan, tmp_path, template):
    recipe = PreprocessRecipe(
        mask="{name}_desc-brain_mask.nii.gz",
        transform="../../{participant_id}/anat/sub-01_xfm.txt",
        bias_correction=False,
    )
    out = preprocess_scan(scan, tmp_path / "out", recipe)
    mask = nib.load(scan.path.with_name("sub-01_desc-brain_mask.nii.gz"))
    np.testing.assert_array_equal(out.native_mask(), np.asarray(mask.dataobj) > 0)
    np.testing.assert_allclose(out.native_to_mni, MOVED, atol=1e-9)
    assert out.qc["registration_ncc"] > 0.9
    sidecar = out.volume_path.with_name(out.volume_path.name.replace(".nii.gz", ".json"))
    facts = json.loads(sidecar.read_text("utf-8"))
    assert facts["OwnFiles"] == {"mask": "sub-01_desc-brain_mask.nii.gz", "transform": "sub-01_xfm.txt"}
    assert facts["Recipe"]["transform"] == "sub-01_xfm.txt"
    assert str(tmp_path) not in sidecar.read_text("utf-8")
    assert "N4BiasCorrectiond" not in [step["Name"] for step in facts["Steps"]]
    # What one run wrote is what another can be given.
    written = read_transform(transform_of_volume(out.volume_path))
    np.testing.assert_allclose(written, out.native_to_mni, atol=1e-6)


def test_a_changed_mask_is_not_taken_for_done(scan):
    recipe = PreprocessRecipe(mask="{name}_desc-brain_mask.nii.gz")
    before = source_digest(scan, recipe)
    assert before != source_digest(scan, PreprocessRecipe())
    shutil.copy(scan.path, scan.path.with_name("sub-01_desc-brain_mask.nii.gz"))
    assert source_digest(scan, recipe) != before


def test_a_missing_file_is_an_error_not_a_fallback(scan):
    with pytest.raises(InputError, match=r"sub-01_T1w.nii.gz: .*no file sub-01_mask.nii.gz .*mask") as caught:
        own_files(scan, PreprocessRecipe(mask="{name}_mask.nii.gz"))
    assert str(scan.path.parent) not in str(caught.value)


def test_registration_off_takes_the_world_as_it_is(scan):
    steps = preprocess_chain(PreprocessRecipe(registration=False, bias_correction=False)).transforms
    data = {"image": scan.path}
    for step in steps:
        data = step(data)
        if "native_to_mni" in data:
            break
    np.testing.assert_array_equal(data["native_to_mni"], np.eye(4))
    assert not any(isinstance(step, N4BiasCorrectiond) for step in steps)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"mask": "{subject}_mask.nii.gz"}, "participant_id"),
        ({"mask": ""}, "must name a file"),
        ({"mask": "{name}.nii", "brain_extraction": "never"}, "exclude each other"),
        ({"transform": "{name}.txt", "registration": False}, "exclude each other"),
    ],
)
def test_settings_that_contradict_are_refused(settings, rule):
    with pytest.raises(ConfigError, match=rule):
        parse_recipe(settings, PreprocessRecipe)


def test_masks_that_do_not_fit_are_refused(save):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    mask = np.zeros((50, 60, 50), np.float32)
    with pytest.raises(InputError, match="empty"):
        read_mask(save(mask, affine, "empty.nii.gz"), mask.shape, affine)
    mask[10:40] = 0.6
    path = save(mask, affine, "mask.nii.gz")
    assert read_mask(path, mask.shape, affine).sum() == 30 * 60 * 50
    shifted = affine.copy()
    shifted[0, 3] = 1.0
    for shape, where in (((50, 60, 51), affine), (mask.shape, shifted)):
        with pytest.raises(InputError, match="another grid"):
            read_mask(path, shape, where)
    path.write_bytes(b"no image")
    with pytest.raises(InputError, match="readable"):
        read_mask(path, mask.shape, affine)


def test_transforms_that_are_no_affine_are_refused(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("1 0 0 0\n")
    with pytest.raises(InputError, match="no readable ITK transform"):
        read_transform(path)
    with pytest.raises(InputError, match="mirroring"):
        read_transform(write_transform(path, np.diag([-1.0, 1, 1, 1])))
    field = sitk.DisplacementFieldTransform(sitk.Image([4, 4, 4], sitk.sitkVectorFloat64))
    sitk.WriteTransform(field, str(tmp_path / "field.h5"))
    with pytest.raises(InputError, match="deformation"):
        read_transform(tmp_path / "field.h5")
