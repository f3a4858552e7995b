import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from brainage.anatomy.grid import MODEL_GRID
from brainage.preprocess.normalize import Landmarks, NormalizeIntensityd, normalised, tissue_landmarks
from brainage.preprocess.template import template_tissues


@pytest.fixture(scope="module")
def brain():
    """A scan on the model grid whose grey matter is 60, white matter 100 and fluid 20, with noise."""
    inside, grey, white = template_tissues()
    fluid = np.clip(1 - grey - white, 0, 1)
    noise = np.random.default_rng(0).normal(0, 2, inside.shape)
    return np.where(inside, np.clip(60 * grey + 100 * white + 20 * fluid + noise, 1, None), 0).astype(
        np.float32
    )


def normalise(volume):
    tensor = MetaTensor(torch.from_numpy(volume)[None], affine=torch.from_numpy(MODEL_GRID.affine))
    out = NormalizeIntensityd()({"volume": tensor, "qc": {"other": 1.0}})
    return out["volume"][0].numpy(), out["qc"]


def test_tissues_of_the_template():
    inside, grey, white = template_tissues()
    assert inside.shape == grey.shape == white.shape == MODEL_GRID.shape
    assert 1.6 < inside.sum() * 8e-6 < 2.1  # litres
    np.testing.assert_array_equal(inside[0], False)


def test_landmarks_are_the_tissues(brain):
    fluid, grey, white = tissue_landmarks(brain)
    assert fluid == pytest.approx(20, abs=8)
    # Means of the classes, to which the many mixed voxels of an average brain belong too.
    assert grey == pytest.approx(60, abs=8)
    assert white == pytest.approx(100, abs=10)


def test_landmarks_stay_where_cortex_turned_into_fluid(brain):
    """Atrophy must not pass for another contrast."""
    _, grey, _ = template_tissues()
    rng = np.random.default_rng(0)
    shrunken = np.where((grey > 0.5) & (rng.random(grey.shape) < 0.3), 20, brain).astype(np.float32)
    np.testing.assert_allclose(tissue_landmarks(shrunken), tissue_landmarks(brain), atol=5)


@pytest.mark.parametrize("tissues", [(10, 40, 100), (60, 130, 160), (20, 80, 110)])
def test_the_contrast_of_the_scanner_does_not_matter(brain, tissues):
    """Also where fluid and grey matter share a voxel, which a straight line through two tissues got wrong."""
    other = np.interp(brain, [0, 20, 60, 100, 140], [0, *tissues, 2 * tissues[2] - tissues[1]])
    other = other.astype(np.float32)
    expected, found = normalise(brain)[0], normalise(other)[0]
    assert np.abs(expected - found)[brain > 0].mean() < 0.05


def test_tissues_are_mapped_straight_between_the_landmarks():
    inside, _, _ = template_tissues()
    volume = np.zeros(inside.shape, np.float32)
    where = tuple(np.argwhere(inside)[:7].T)
    volume[where] = [5, 10, 20, 30, 65, 135, 500]
    expected = [0, 0, 0.25, 0.5, 0.75, 1.25, 1.5]
    np.testing.assert_allclose(normalised(volume, Landmarks(10, 30, 100))[where], expected, atol=1e-6)


def test_grey_is_a_half_and_white_is_one(brain):
    volume, qc = normalise(brain)
    inside, grey, white = template_tissues()
    assert np.median(volume[white > 0.95]) == pytest.approx(1, abs=0.15)
    assert np.median(volume[(grey > 0.9) & (white < 0.05)]) == pytest.approx(0.5, abs=0.1)
    assert (volume[~inside] == 0).all()
    assert volume.min() >= 0
    assert volume.max() <= 1.5
    assert qc == {
        "other": 1.0,
        "grey_white_ratio": pytest.approx(0.6, abs=0.1),
        "fluid_white_ratio": pytest.approx(0.2, abs=0.1),
    }


@pytest.mark.parametrize("factor", [1e-3, 0.37, 5000])
def test_scale_of_intensities_does_not_matter(brain, factor):
    np.testing.assert_allclose(normalise(brain * np.float32(factor))[0], normalise(brain)[0], atol=0.02)


def test_what_lies_outside_the_brain_is_removed(brain):
    with_neck = np.where(brain == 0, 150, brain).astype(np.float32)
    assert (normalise(with_neck)[0][brain == 0] == 0).all()


def test_other_contrasts_and_empty_volumes_are_refused(brain):
    with pytest.raises(ValueError, match="not darker"):
        normalise(np.where(brain > 0, 130 - brain, 0).astype(np.float32))
    with pytest.raises(ValueError, match="hardly any voxel"):
        normalise(np.zeros_like(brain))
