import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from brainage.anatomy.grid import MODEL_GRID
from brainage.preprocess.quality_mirror import MeasureLeftRightd, block_means, left_right
from brainage.preprocess.template import template_tissues


@pytest.fixture
def volume():
    return np.random.default_rng(0).uniform(0, 1.5, MODEL_GRID.shape).astype(np.float32)


def test_the_mirror_image_scores_the_opposite(volume):
    assert left_right(volume[::-1]) == pytest.approx(-left_right(volume))
    assert left_right(volume) != 0


def test_a_symmetric_brain_scores_nothing():
    _, grey, white = template_tissues()
    template = 0.5 * grey + white
    assert left_right((template + template[::-1]) / 2) == pytest.approx(0, abs=1e-6)


def test_longer_right_front_and_left_back_are_the_usual_way_round():
    template = template_tissues()[0].astype(float)
    template = (template + template[::-1]) / 2
    usual = template.copy()
    # Half of what lies in front goes from left to right, and of what lies behind from right to left.
    usual[:40, 78:] *= 0.5
    usual[40:, :18] *= 0.5
    assert left_right(usual) > 0.1


def test_block_means_by_hand():
    volume = np.zeros(MODEL_GRID.shape)
    volume[4:8, 0:4, 0:2] = 1
    means = block_means(volume)
    assert means.shape == (20, 24, 20)
    assert means[1, 0, 0] == 0.5
    assert means.sum() == 0.5


def test_transform_adds_to_the_figures(volume):
    tensor = MetaTensor(torch.from_numpy(volume)[None], affine=torch.from_numpy(MODEL_GRID.affine))
    qc = MeasureLeftRightd()({"volume": tensor, "qc": {"other": 1.0}})["qc"]
    assert qc == {"other": 1.0, "left_right": left_right(volume)}
