import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainage.errors import InputError
from brainage.preprocess.load import LoadScand, read_scan


def refused(path, words):
    with pytest.raises(InputError, match=words) as caught:
        read_scan(path)
    sentence = str(caught.value)
    assert sentence.startswith(path.name)
    assert "\n" not in sentence
    assert str(path.parent) not in sentence
    assert sentence.endswith(".")
    return sentence


def header(**fields):
    def change(image):
        for name, value in fields.items():
            image.header[name] = value

    return change


def test_a_good_scan_is_scaled_and_placed(save, noise):
    path = save(noise)
    array, affine, warnings = read_scan(path)
    assert array.dtype == np.float32
    assert array.shape == noise.shape
    np.testing.assert_allclose(affine, np.diag([2, 2, 2, 1]))
    assert warnings == []
    np.testing.assert_allclose(array / array.max(), noise / noise.max(), rtol=1e-5)
    assert np.percentile(array, 99.9) == pytest.approx(1000, rel=1e-3)


def test_missing_empty_and_foreign_files(tmp_path):
    refused(tmp_path / "no.nii.gz", "no such file")
    refused(tmp_path, "no readable DICOM image")
    empty = tmp_path / "empty.nii.gz"
    empty.touch()
    refused(empty, "an empty file")
    for name in ("text.nii", "text.nii.gz", "text.txt"):
        (tmp_path / name).write_text("not an image" * 100)
        refused(tmp_path / name, "no readable header")


def test_a_broken_link_says_so(tmp_path):
    link = tmp_path / "sub-01_T1w.nii.gz"
    link.symlink_to(tmp_path / "annex")
    refused(link, "datalad get")


def test_other_formats_are_named(tmp_path, noise):
    path = tmp_path / "scan.mnc"
    path.write_bytes(b"CDF\x01" + bytes(2000))
    refused(path, "no readable header")


def test_a_freesurfer_volume(tmp_path, noise):
    affine = np.array([[-2, 0, 0, 40], [0, 0, 2, -60], [0, -2, 0, 50], [0, 0, 0, 1.0]])
    path = tmp_path / "T1.mgz"
    image = nib.MGHImage(np.tile(noise, (2, 1, 1)), affine)
    nib.save(image, path)
    array, found, warnings = read_scan(path)
    np.testing.assert_allclose(found, affine, atol=1e-4)
    np.testing.assert_allclose(array / array.max(), np.tile(noise, (2, 1, 1)) / noise.max(), rtol=1e-5)
    assert warnings == []
    image.header["goodRASFlag"] = 0
    nib.save(image, path)
    refused(path, "no orientation")


@pytest.mark.parametrize(("code", "axes"), [(0, "LAS"), (1, "LSA"), (2, "ASL")])
def test_an_analyze_pair_says_that_its_sides_are_a_guess(tmp_path, noise, code, axes):
    path = tmp_path / "scan.hdr"
    image = nib.AnalyzeImage((noise * 10).astype(np.int16), None)
    image.header.set_zooms((2, 3, 2))
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    raw[252] = code
    path.write_bytes(raw)
    for name in ("scan.hdr", "scan.img"):
        array, affine, warnings = read_scan(tmp_path / name)
        assert array.shape == noise.shape
        assert "".join(nib.aff2axcodes(affine)) == axes
        assert sorted(np.abs(affine[:3, :3]).max(axis=0)) == [2, 2, 3]
        np.testing.assert_allclose(affine @ [24.5, 29.5, 24.5, 1], [0, 0, 0, 1], atol=1e-4)
        assert len(warnings) == 1
        assert f"taken as {axes}; left and right may be swapped" in warnings[0]
    raw[252] = 4
    path.write_bytes(raw)
    refused(path, "orientation code 4")
    (tmp_path / "scan.img").unlink()
    refused(path, r"without its \.img file")


def test_an_spm_pair_with_its_mat_file(tmp_path, noise):
    affine = np.array([[0, 0, 2, -50], [2, 0, 0, -60], [0, 2, 0, -40], [0, 0, 0, 1.0]])
    path = tmp_path / "scan.hdr"
    nib.save(nib.Spm2AnalyzeImage((noise * 10).astype(np.int16), affine), path)
    assert path.with_suffix(".mat").is_file()
    _, found, warnings = read_scan(path)
    np.testing.assert_allclose(found, affine, atol=1e-4)
    assert warnings == []


def test_a_nifti_pair(tmp_path, noise):
    path = tmp_path / "scan.hdr"
    image = nib.Nifti1Pair(noise, np.diag([2.0, 2, 2, 1]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    _, affine, warnings = read_scan(path)
    np.testing.assert_allclose(affine, np.diag([2.0, 2, 2, 1]))
    assert warnings == []


def test_a_gzip_bomb_is_not_unpacked(save, noise, monkeypatch):
    monkeypatch.setattr("brainage.data.formats_reading.MOST_EXTRA", 1 << 20)
    path = save(noise)
    with gzip.open(path, "ab", compresslevel=1) as stream:
        for _ in range(40):
            stream.write(bytes(1 << 20))
    refused(path, "more than .* MB of data where its header promises 0 MB")


def test_a_header_extension_of_gigabytes_is_not_read(save, noise):
    path = save(noise, name="sub-01_T1w.nii")
    content = bytearray(path.read_bytes())
    content[108:112] = np.array([3e9], "<f4").tobytes()  # vox_offset
    path.write_bytes(content)
    refused(path, r"begin at byte 3e\+09")


def test_dimensions_that_overflow_are_refused(tmp_path):
    header = nib.Nifti2Header()
    header.set_data_dtype(np.int16)
    header["dim"] = [3, 2**32, 2**32, 1, 1, 1, 1, 1]
    header["vox_offset"] = 544
    path = tmp_path / "sub-01_T1w.nii"
    path.write_bytes(header.binaryblock + bytes(1000))
    refused(path, "4294967296 x 4294967296 x 1 voxels")


@pytest.mark.parametrize("kept", [100, 2_000, 0.5, 0.98])
def test_a_truncated_file(save, noise, kept):
    for name in ("sub-01_T1w.nii.gz", "sub-01_T1w.nii"):
        path = save(noise, name=name)
        content = path.read_bytes()
        path.write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
        refused(path, "header|damaged")


def test_a_flipped_byte_in_the_compressed_data(save, noise):
    path = save(noise)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    refused(path, "damaged")


def test_a_header_that_promises_a_huge_image(save, noise):
    path = save(noise, name="sub-01_T1w.nii")
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([30_000] * 3, "<i2").tobytes()  # dim[1:4]
    path.write_bytes(content)
    refused(path, "30000 x 30000 x 30000 voxels")


def test_dimensions(save, noise):
    refused(save(np.stack([noise] * 3, -1)), r"a 4-D image \(50 x 60 x 50 x 3\)")
    refused(save(noise[0]), "a 2-D image")
    array, _, _ = read_scan(save(noise[..., None]))
    assert array.shape == noise.shape


def test_colours_and_complex_numbers(save, noise):
    colour = np.zeros(noise.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(save(colour), "colours")
    refused(save(noise.astype(np.complex64)), "complex numbers")


def test_values_that_are_not_finite(save, noise):
    few = noise.copy()
    few[0, 0, :5] = [np.nan, np.inf, -np.inf, np.nan, np.nan]
    array, _, warnings = read_scan(save(few))
    assert np.isfinite(array).all()
    assert (array[0, 0, :5] == 0).all()
    assert warnings == ["5 voxels were NaN or infinite and count as 0"]
    few[:10] = np.nan
    refused(save(few), "20% of the voxels NaN or infinite")


def test_images_without_contrast(save, noise):
    refused(save(np.zeros_like(noise)), "the value 0 in every voxel")
    refused(save(np.full_like(noise, 7)), "the value 7 in every voxel")
    refused(save((noise > 100).astype(np.uint8)), "only 1 different values")


def test_no_affine(save, noise):
    sentence = refused(save(noise, change=header(sform_code=0, qform_code=0)), "no affine")
    assert "left and right" in sentence


def test_a_degenerate_affine(save, noise):
    refused(save(noise, change=header(srow_z=0, qform_code=0)), "degenerate")
    sheared = np.array([[2, 1.9, 0, 0], [0, 0.5, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])

    def shear(image):
        image.header.set_sform(sheared, 1)
        image.header["qform_code"] = 0

    refused(save(noise, change=shear), "degenerate")


def test_a_degenerate_sform_beside_a_good_qform(save, noise):
    def change(image):
        image.header["srow_x"] = np.nan

    _, affine, warnings = read_scan(save(noise, change=change))
    np.testing.assert_allclose(affine, np.diag([2, 2, 2, 1]))
    assert "degenerate" in warnings[0]


def test_units(save, noise):
    def units(name, factor):
        def change(image):
            affine = np.diag([2.0 * factor] * 3 + [1.0])
            image.header["pixdim"][1:4] = 2.0 * factor
            image.set_sform(affine, 1)
            image.set_qform(affine, 1)
            image.header["xyzt_units"] = {"unknown": 0, "meter": 1, "mm": 2, "micron": 3, "odd": 5}[name]

        return change

    for name, factor in (("meter", 0.001), ("mm", 1), ("micron", 1000)):
        _, affine, warnings = read_scan(save(noise, change=units(name, factor)))
        np.testing.assert_allclose(affine, np.diag([2, 2, 2, 1]), rtol=1e-5)
        assert warnings == []
    for name in ("unknown", "odd"):
        _, affine, warnings = read_scan(save(noise, change=units(name, 1)))
        assert "taken as millimetres" in warnings[0]
    refused(save(noise, change=units("unknown", 0.001)), "unknown units")
    refused(save(noise, change=units("mm", 0.001)), "in mm")


def test_an_implausible_field_of_view(save, noise):
    refused(save(noise[:20]), re.escape("a field of view of 40 x 120 x 100 mm"))
    refused(save(np.tile(noise, (7, 1, 1))), "700 x 120 x 100")


def test_disagreeing_affines_warn(save, noise):
    def change(image):
        image.set_qform(np.diag([-2.0, 2, 2, 1]), 1)

    _, affine, warnings = read_scan(save(noise, change=change))
    assert affine[0, 0] == 2
    assert warnings == ["sform and qform disagree, so the sform was used"]


def test_scl_slope_is_applied(save, noise, tmp_path):
    image = nib.Nifti1Image(noise.astype(np.int16), np.diag([2.0, 2, 2, 1]))
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(0.5, -10)
    path = tmp_path / "scaled.nii.gz"
    nib.save(image, path)
    stored = nib.load(path).get_fdata()
    array, _, _ = read_scan(path)
    expected = np.maximum(
        stored if (stored < 0).mean() <= 0.01 else stored - np.percentile(stored[stored < 0], 0.5), 0
    )
    assert np.corrcoef(array.ravel(), expected.ravel())[0, 1] > 0.999


def test_a_standardised_brain_keeps_its_background_and_its_order(template, save):
    raw = template.get_fdata(dtype=np.float32)
    inside = raw > 0
    standard = np.where(inside, (raw - raw[inside].mean()) / raw[inside].std(), 0).astype(np.float32)
    array, _, warnings = read_scan(save(standard, template.affine))
    assert "negative intensities" in warnings[0]
    assert (array[~inside] == 0).all()
    assert (array[inside] > 0).mean() > 0.99
    assert np.corrcoef(array[inside], raw[inside])[0, 1] > 0.99


@pytest.mark.parametrize("axes", ["LPS", "PSR", "IAL", "SRP"])
def test_every_orientation_becomes_ras(save, noise, axes):
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = [5, -7, 11]
    orientation = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes)
    )
    turned = nib.Nifti1Image(noise, affine).as_reoriented(orientation)
    data = LoadScand()({"image": save(np.asarray(turned.dataobj), turned.affine)})
    assert nib.aff2axcodes(data["image"].affine.numpy()) == ("R", "A", "S")
    np.testing.assert_allclose(data["image"].affine.numpy(), affine, atol=1e-4)
    assert data["image"].shape == (1, *noise.shape)
    assert data["native_shape"] == turned.shape
    np.testing.assert_allclose(data["native_affine"], turned.affine, atol=1e-4)
    np.testing.assert_allclose(data["image"][0].numpy() / noise, data["image"].max() / noise.max(), rtol=1e-4)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_header_is_refused_or_read_but_never_a_bug(save, noise, changes):
    path = save(noise, name="sub-01_T1w.nii")
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place] = value
    path.write_bytes(content)
    try:
        array, affine, _ = read_scan(path)
    except InputError:
        return
    assert np.isfinite(array).all()
    assert np.isfinite(affine).all()
    assert array.ndim == 3


def test_a_quaternion_longer_than_one_costs_only_the_qform(tmp_path: Path) -> None:
    image = nib.Nifti1Image(_textured(), np.diag([2.0, 2, 2, 1]))
    image.set_sform(image.affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["qform_code"] = 1
    image.header["quatern_b"] = 1.5
    path = tmp_path / "sub-01_T1w.nii"
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    np.frombuffer(raw, dtype=image.header.template_dtype, count=1)["quatern_b"][:] = 1.5
    path.write_bytes(raw)
    loaded = LoadScand("image")({"image": path})
    assert loaded["image"].shape[1:] == image.shape


def _textured() -> np.ndarray:
    return np.random.default_rng(0).uniform(100, 900, (40, 48, 40)).astype(np.float32)


def test_one_hot_voxel_does_not_drown_the_others(tmp_path: Path) -> None:
    data = _textured()
    data[20, 20, 20] = 1e30
    image = nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1]))
    image.header.set_xyzt_units("mm")
    path = tmp_path / "sub-01_T1w.nii"
    nib.save(image, path)
    loaded = LoadScand("image")({"image": path})["image"]
    assert float(loaded.max()) <= 5001
    assert float(loaded.median()) > 300


def test_intensities_too_small_to_scale_are_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image((_textured() * 1e-42).astype(np.float32), np.diag([2.0, 2, 2, 1]))
    image.header.set_xyzt_units("mm")
    path = tmp_path / "sub-01_T1w.nii"
    nib.save(image, path)
    with pytest.raises(InputError, match=r"no intensity above the background|few|empty|constant"):
        LoadScand("image")({"image": path})
