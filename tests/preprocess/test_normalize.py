import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from brainage.anatomy.grid import MODEL_GRID
from brainage.preprocess.normalize import NormalizeIntensityd, template_tissues, tissue_landmarks


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
    grey, white = tissue_landmarks(brain)
    assert grey == pytest.approx(60, abs=4)
    assert white == pytest.approx(100, abs=3)


def test_grey_is_a_half_and_white_is_one(brain):
    volume, qc = normalise(brain)
    inside, grey, white = template_tissues()
    assert np.median(volume[white > 0.95]) == pytest.approx(1, abs=0.06)
    assert np.median(volume[(grey > 0.9) & (white < 0.05)]) == pytest.approx(0.5, abs=0.08)
    assert (volume[~inside] == 0).all()
    assert volume.min() >= 0
    assert volume.max() <= 1.5
    assert qc == {"other": 1.0, "grey_white_ratio": pytest.approx(0.6, abs=0.05)}


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
