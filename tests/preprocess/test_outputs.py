import json

import nibabel as nib
import numpy as np
import pytest

from brainage.anatomy.grid import MODEL_GRID
from brainage.data.cohort import scan_of
from brainage.errors import InputError
from brainage.preprocess import outputs
from brainage.preprocess.outputs import (
    find_preprocessed,
    is_done,
    is_preprocessed,
    read_preprocessed,
    sidecar_of,
    write_outputs,
)
from brainage.preprocess.provenance import software_versions

SCAN = scan_of("sub-01/ses-1/anat/sub-01_ses-1_acq-x_T1w.nii.gz")
NATIVE = np.diag([-1.5, 1.5, 2.0, 1.0])
FACTS = {
    "Versions": software_versions(),
    "SourceSHA256": "abc",
    "Fingerprint": "123",
    "Stripped": True,
    "NativeToMNI": np.eye(4).tolist(),
    "NativeShape": [12, 13, 14],
    "NativeAffine": NATIVE.tolist(),
    "QC": {"registration_ncc": 0.6},
    "Warnings": ["odd"],
}


@pytest.fixture
def volume():
    return np.random.default_rng(0).uniform(0, 1.5, MODEL_GRID.shape).astype(np.float32)


@pytest.fixture
def mask():
    mask = np.zeros((12, 13, 14), np.uint8)
    mask[3:9, 2:5, 6:12] = 1
    return mask


@pytest.fixture
def written(tmp_path, volume, mask):
    return write_outputs(SCAN, tmp_path, volume, mask, FACTS)


def test_names_and_content(tmp_path, written, volume, mask):
    folder = tmp_path / "sub-01" / "ses-1" / "anat"
    start = "sub-01_ses-1_acq-x_"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{start}desc-brain_mask.json",
        f"{start}desc-brain_mask.nii.gz",
        f"{start}from-T1w_to-MNI152NLin2009aSym_mode-image_xfm.txt",
        f"{start}space-MNI152NLin2009aSym_res-2_desc-preproc_T1w.json",
        f"{start}space-MNI152NLin2009aSym_res-2_desc-preproc_T1w.nii.gz",
    ]
    assert find_preprocessed(tmp_path) == [written.volume_path]
    again = read_preprocessed(written.volume_path)
    assert (again.participant_id, again.session_id) == ("sub-01", "ses-1")
    assert again.volume().dtype == np.float32
    np.testing.assert_allclose(again.volume(), volume, atol=1e-3)
    np.testing.assert_array_equal(again.native_mask(), mask > 0)
    np.testing.assert_array_equal(nib.load(again.mask_path).affine, NATIVE)
    np.testing.assert_array_equal(nib.load(again.volume_path).affine, MODEL_GRID.affine)
    assert again.warnings == ("odd",)
    assert again.stripped
    assert again.native_shape == (12, 13, 14)
    assert again.qc == {"registration_ncc": 0.6}


def test_outputs_do_not_depend_on_when_they_were_written(tmp_path, written, volume, mask):
    other = write_outputs(SCAN, tmp_path / "other", volume, mask, FACTS)
    for one, two in ((written.volume_path, other.volume_path), (written.mask_path, other.mask_path)):
        assert one.read_bytes() == two.read_bytes()


def test_done_only_while_whole_and_of_the_same_source_and_settings(tmp_path, written):
    assert is_done(SCAN, tmp_path, "123", "abc")
    assert not is_done(SCAN, tmp_path, "124", "abc")
    assert not is_done(SCAN, tmp_path, "123", "abd")
    for path in (written.volume_path, written.mask_path):
        content = path.read_bytes()
        path.write_bytes(content[:-20])
        assert not is_done(SCAN, tmp_path, "123", "abc")
        path.unlink()
        assert not is_done(SCAN, tmp_path, "123", "abc")
        path.write_bytes(content)
        assert is_done(SCAN, tmp_path, "123", "abc")
    sidecar_of(written.volume_path).write_text("{")
    assert not is_done(SCAN, tmp_path, "123", "abc")


@pytest.mark.parametrize("call", [1, 2])
def test_a_full_disk_leaves_no_result_and_no_partial_file(tmp_path, volume, mask, monkeypatch, call):
    calls = []

    def save(image, path):
        calls.append(path)
        path.write_bytes(b"half")
        if len(calls) == call:
            raise OSError(28, "No space left on device")
        nib.Nifti1Image.to_filename(image, path)

    monkeypatch.setattr(outputs.nib, "save", save)
    with pytest.raises(OSError, match="No space left"):
        write_outputs(SCAN, tmp_path, volume, mask, FACTS)
    assert find_preprocessed(tmp_path) == []
    assert list(tmp_path.rglob(".partial*")) == []


def test_a_failed_rewrite_does_not_pass_for_the_old_result(tmp_path, written, volume, mask, monkeypatch):
    def full(image, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs.nib, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_outputs(SCAN, tmp_path, volume, mask, FACTS)
    assert not is_preprocessed(written.volume_path)


@pytest.mark.parametrize(
    "change",
    [
        {"NativeToMNI": [[1, 2]]},
        {"NativeToMNI": "x"},
        {"NativeShape": [1, 2]},
        {"QC": None},
        {"Mask": 3},
        {"Warnings": None},
    ],
)
def test_a_damaged_sidecar(written, change):
    sidecar = sidecar_of(written.volume_path)
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text("utf-8")) | change))
    with pytest.raises(InputError, match="run brainage preprocess again"):
        read_preprocessed(written.volume_path)


def test_damaged_files(written):
    nib.save(nib.Nifti1Image(np.zeros((5, 5, 5)), np.eye(4)), written.volume_path)
    with pytest.raises(InputError, match="not on the model grid"):
        written.volume()
    written.mask_path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="no readable NIfTI"):
        written.native_mask()
    sidecar_of(written.volume_path).unlink()
    assert not is_preprocessed(written.volume_path)
    with pytest.raises(InputError, match="no sidecar"):
        read_preprocessed(written.volume_path)


def test_a_sidecar_names_no_file_elsewhere(written, tmp_path):
    sidecar = sidecar_of(written.volume_path)
    sidecar.write_text(
        json.dumps(json.loads(sidecar.read_text("utf-8")) | {"Mask": "../../../../etc/passwd"})
    )
    assert read_preprocessed(written.volume_path).mask_path.parent == written.volume_path.parent
