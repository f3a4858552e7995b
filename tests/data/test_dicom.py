"""DICOM folders: which series is meant, whether it is whole, and where its voxels lie."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from brainage.data.dicom import choose_series, dicom_scan
from brainage.data.dicom_volume import open_series
from brainage.data.formats import digest_of, files_of
from brainage.errors import InputError

_SPEC = importlib.util.spec_from_file_location("dicom_series", Path(__file__).with_name("dicom_series.py"))
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
write_series = _MODULE.write_series


@pytest.fixture
def volume():
    return np.random.default_rng(0).integers(0, 900, (24, 20, 26)).astype(np.int16)


def refused(path, words):
    with pytest.raises(InputError, match=words) as caught:
        open_series(path)
    assert "Secret" not in str(caught.value)
    assert str(path.parent) not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("cosines", ["0\\1\\0\\0\\0\\-1", "1\\0\\0\\0\\1\\0", "0.8\\0.6\\0\\0\\0\\-1"])
def test_voxels_lie_where_itk_and_the_standard_say(tmp_path, volume, cosines):
    write_series(tmp_path / "d", volume, cosines=cosines)
    image = open_series(tmp_path / "d")
    np.testing.assert_array_equal(image.get_fdata(), volume)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "d")))
    other = reader.Execute()
    for index in ((0, 0, 0), (23, 0, 3), (5, 19, 25)):
        lps = np.array(other.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose(image.affine @ [*index, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-4)
    # By hand: the first voxel of the first slice is at ImagePositionPatient, LPS.
    np.testing.assert_allclose(image.affine[:3, 3], [10, -20, 30])
    np.testing.assert_allclose(np.linalg.norm(image.affine[:3, :3], axis=0), [2, 2.5, 3])
    assert np.linalg.det(image.affine[:3, :3]) != 0


def test_the_t1_is_picked_among_others(tmp_path, volume):
    folder = tmp_path / "d"
    mine = write_series(folder, volume, uid="1.2.3.1")
    write_series(folder, volume, "t2_space_flair", uid="1.2.3.2")
    write_series(folder, volume[:, :, :3], "localizer_t1", uid="1.2.3.3")
    write_series(folder, volume, "t1_mpr_tra", uid="1.2.3.4", t0008_0008="DERIVED\\SECONDARY\\MPR")
    write_series(folder, volume, "ep2d_diff", uid="1.2.3.5")
    (folder / "DICOMDIR").write_text("x")
    (folder / "notes.txt").write_text("x")
    assert set(choose_series(folder).paths) == set(mine)
    assert set(files_of(folder)) == set(mine)
    assert digest_of(folder) == digest_of(mine[3])


def test_ambiguity_is_refused_by_listing_what_was_found(tmp_path, volume):
    folder = tmp_path / "d"
    write_series(folder, volume, "t1_mprage", uid="1.2.3.1")
    other = write_series(folder, volume, "t1_mprage_gd", uid="1.2.3.2")
    said = refused(folder, "several T1-weighted series")
    assert "'t1_mprage' (26 slices); 't1_mprage_gd' (26 slices)" in said
    # One file of it names a series.
    assert set(choose_series(other[5]).paths) == set(other)


def test_no_t1_is_refused_by_listing_what_was_found(tmp_path, volume):
    write_series(tmp_path / "d", volume, "t2_tse")
    assert "'t2_tse' (26 slices)" in refused(tmp_path / "d", "no series that is T1-weighted")


def test_a_series_without_a_name_is_told_by_its_timing(tmp_path, volume):
    timing = {"t0018_0023": "3D", "t0018_0080": "2300", "t0018_0081": "2.98"}
    write_series(tmp_path / "d", volume, "", **timing)
    write_series(tmp_path / "d", volume, "", uid="1.2.3.2", **{**timing, "t0018_0081": "400"})
    assert choose_series(tmp_path / "d").first["series"] == "1.2.3.1"


def test_missing_slices_are_refused(tmp_path, volume):
    write_series(tmp_path / "d", volume, skip=(7, 8, 15))
    refused(tmp_path / "d", "3 slices missing, the first after slice 7")
    write_series(tmp_path / "e", volume, skip=(24, 25), t0020_1002="26")
    refused(tmp_path / "e", r"\(24 slices\) of an acquisition of 26")


def test_slices_in_one_place_are_refused(tmp_path, volume):
    write_series(tmp_path / "d", volume)
    path = write_series(tmp_path / "other", volume[:, :, :1])[0]
    path.rename(tmp_path / "d" / "again.dcm")
    refused(tmp_path / "d", "1 slices at the place of another")


def test_a_damaged_file_and_an_empty_folder(tmp_path, volume):
    paths = write_series(tmp_path / "d", volume)
    paths[4].write_bytes(paths[4].read_bytes()[:700])
    refused(tmp_path / "d", "damaged DICOM|slices missing")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no readable DICOM")


def test_ids_come_from_bids_folders_or_the_study_never_from_a_name(tmp_path, volume):
    write_series(tmp_path / "Secret_Patient", volume)
    scan = dicom_scan(tmp_path / "Secret_Patient")
    assert scan.participant_id.startswith("sub-dicom")
    assert len(scan.participant_id) == len("sub-dicom") + 8
    assert "ecret" not in json.dumps([scan.participant_id, dict(scan.entities)])
    write_series(tmp_path / "sub-7" / "ses-2" / "dicom", volume)
    scan = dicom_scan(tmp_path / "sub-7" / "ses-2" / "dicom")
    assert (scan.participant_id, scan.session_id) == ("sub-7", "ses-2")


def test_what_is_read_survives_nifti(tmp_path, volume):
    write_series(tmp_path / "d", volume)
    image = open_series(tmp_path / "d")
    nib.save(image, tmp_path / "x.nii")
    np.testing.assert_allclose(nib.load(tmp_path / "x.nii").affine, image.affine, atol=1e-4)
