import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy import ndimage

from brainage.preprocess.normalize import NormalizeIntensityd, tissue_landmarks
from brainage.preprocess.quality_image import MeasureImageQualityd
from brainage.preprocess.quality_regions import ghost_regions, sure_tissues, surroundings
from brainage.preprocess.resample import ResampleToModelGridd

AIR = {"qi_1", "fber", "snrd_total", "cnr", "gsr"}
TISSUE = {"snr_csf", "snr_gm", "snr_wm", "snr_total", "cjv", "wm2max"}


@pytest.fixture(scope="module")
def head(template):
    """The template's brain under a bright scalp, with noise in the air; its mask; its affine."""
    image = nib.as_closest_canonical(template)
    brain = np.pad(image.get_fdata(dtype=np.float32), 8)
    mask = brain > 0
    distance = ndimage.distance_transform_edt(~mask, sampling=2)
    values = np.where((distance > 4) & (distance < 10), 900, brain).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 8, (2, *values.shape)).astype(np.float32)
    affine = image.affine @ np.array([[1, 0, 0, -8], [0, 1, 0, -8], [0, 0, 1, -8], [0, 0, 0, 1.0]])
    return np.hypot(values + noise[0], noise[1]), mask, affine


def after(values, mask, affine, stripped=False, field=1.0):
    def tensor(array):
        return MetaTensor(
            torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None],
            affine=torch.from_numpy(affine),
        )

    data = {
        "image": tensor(values),
        "uncorrected": tensor(values * field),
        "brain_mask": tensor(mask),
        "native_to_mni": np.eye(4),
        "stripped": stripped,
        "qc": {"other": 1.0},
    }
    return MeasureImageQualityd()(ResampleToModelGridd()(data))


def measured(*arguments, **options):
    return after(*arguments, **options)["qc"]


@pytest.fixture(scope="module")
def good(head):
    return measured(*head)


def test_what_is_measured_of_a_head(good):
    assert AIR | TISSUE | {"inu_range", "inu_med", "fwhm_avg", "efc", "other"} == set(good)
    assert good["qi_1"] < 0.001
    assert abs(good["gsr"]) < 0.002
    assert good["inu_range"] == pytest.approx(0, abs=1e-5)
    assert 0.2 < good["cjv"] < 0.6
    assert 0 < good["efc"] < 1
    assert all(np.isfinite(value) for value in good.values())


def test_a_stripped_scan_has_no_figures_of_air(head):
    values, mask, affine = head
    stripped = measured(values * mask, mask, affine, stripped=True)
    assert TISSUE | {"inu_range", "inu_med", "fwhm_avg", "other"} == set(stripped)


def test_an_erased_background_has_no_noise(head):
    values, mask, affine = head
    near = ndimage.binary_dilation(mask, iterations=6)
    assert not AIR & set(measured(values * near, mask, affine))


def test_noise_lowers_what_should_be_high(head, good):
    values, mask, affine = head
    noise = np.random.default_rng(1).normal(0, 60, (2, *values.shape))
    noisy = measured(np.hypot(values + noise[0], noise[1]), mask, affine)
    for name in ("snr_wm", "snr_total", "snrd_total", "cnr", "fber"):
        assert noisy[name] < 0.9 * good[name], name
    assert noisy["cjv"] > 1.2 * good["cjv"]
    assert noisy["efc"] > good["efc"]


def test_a_ghost_shows_in_the_air(head, good):
    values, mask, affine = head
    ghosted = measured(values + 0.15 * np.roll(values, values.shape[1] // 2, axis=1), mask, affine)
    assert ghosted["qi_1"] > good["qi_1"] + 0.01
    assert ghosted["gsr"] > 0.02


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_motion_shows_in_line_with_the_head_along_any_axis(head, axis):
    values, mask, affine = head
    lines = np.fft.fft(values, axis=axis)
    place = [slice(None)] * 3
    # A quarter of the lines is measured when the head lies 4 voxels further.
    place[axis] = slice(1, None, 4)
    lines[tuple(place)] = np.fft.fft(np.roll(values, 4, axis=(axis + 1) % 3), axis=axis)[tuple(place)]
    moved = np.abs(np.fft.ifft(lines, axis=axis))
    assert measured(moved, mask, affine)["gsr"] > 0.02
    regions = list(ghost_regions(surroundings(moved, mask, affine, np.eye(4))))
    means = [moved[ghost].mean() - moved[background].mean() for ghost, background in regions]
    assert np.argmax(means) == axis


def test_noise_and_an_uneven_field_are_no_ghosts(head):
    values, mask, affine = head
    noise = np.random.default_rng(1).normal(0, 60, (2, *values.shape))
    ramp = np.linspace(0.5, 1.5, values.shape[1], dtype=np.float32)[None, :, None]
    assert measured(np.hypot(values + noise[0], noise[1]), mask, affine)["gsr"] < 0.01
    # N4 divides the air by the field as well.
    assert measured(values / ramp, mask, affine, field=ramp)["gsr"] < 0.005


def test_the_bias_field_that_was_taken_away(head):
    values, mask, affine = head
    ramp = np.linspace(0.5, 1.5, values.shape[1], dtype=np.float32)[None, :, None]
    assert measured(values, mask, affine, field=ramp)["inu_range"] > 0.4


def test_without_tissues_there_are_no_figures_of_them(head):
    _, mask, affine = head
    flat = measured(np.full(mask.shape, 100.0), mask, affine)
    assert not TISSUE & set(flat)
    assert "fwhm_avg" in flat


def test_an_empty_mask_measures_nothing(head):
    values, mask, affine = head
    assert measured(values, np.zeros_like(mask), affine) == {"other": 1.0}


def test_regions(head):
    values, mask, affine = head
    tissues = sure_tissues(values, mask, np.full(3, 2.0), 600.0, 850.0)
    assert not (tissues.grey & tissues.white).any()
    assert np.median(values[tissues.grey]) == pytest.approx(600, rel=0.05)
    assert np.median(values[tissues.white]) == pytest.approx(850, rel=0.05)
    around = surroundings(values, mask, affine, np.eye(4))
    assert around.image.shape == values.shape
    assert around.head[mask].all()
    assert not (around.head & around.air).any()
    heights = np.nonzero(around.air)[2] * 2 + affine[2, 3]
    assert heights.min() > -60
    for ghost, background in ghost_regions(around):
        assert not (ghost & background).any()
        np.testing.assert_array_equal(ghost | background, around.air)


def test_landmarks_are_found_once_and_left_for_the_normalisation(head, monkeypatch):
    data = after(*head)
    found = tissue_landmarks(data["volume"][0].numpy())
    assert data["landmarks"] == found
    alone = NormalizeIntensityd()({key: value for key, value in data.items() if key != "landmarks"})
    monkeypatch.setattr("brainage.preprocess.normalize.tissue_landmarks", None)
    together = NormalizeIntensityd()(data)
    assert "landmarks" not in together
    np.testing.assert_array_equal(together["volume"].numpy(), alone["volume"].numpy())
    assert together["qc"] == alone["qc"]


def test_a_scan_without_landmarks_keeps_its_other_figures_and_is_refused_later(head):
    values, mask, affine = head
    data = after(np.where(mask, values.max() - values, values).astype(np.float32), mask, affine)
    assert "landmarks" not in data
    assert {"inu_range", "fwhm_avg", "efc"} <= set(data["qc"])
    assert not TISSUE & set(data["qc"])
    with pytest.raises(ValueError, match="grey matter is not darker"):
        NormalizeIntensityd()(data)
