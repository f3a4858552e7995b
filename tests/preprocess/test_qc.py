import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from brainage.anatomy.grid import MODEL_GRID
from brainage.preprocess.normalize import template_tissues
from brainage.preprocess.qc import LIMITS, MeasureQualityd, judge

GOOD = {
    "registration_ncc": 0.6, "brain_volume_ml": 1400, "mask_in_template": 0.93, "template_covered": 0.97,
    "scale": 1.4, "stretch": 1.1, "rotation_deg": 10, "grey_white_ratio": 0.62, "largest_voxel_mm": 1.0,
}  # fmt: skip


def measure(mask, native_to_mni, affine=MODEL_GRID.affine):
    tensor = MetaTensor(torch.from_numpy(mask.astype(np.uint8))[None], affine=torch.from_numpy(affine))
    data = {
        "brain_mask": tensor,
        "native_to_mni": native_to_mni,
        "native_affine": affine,
        "qc": {"other": 1.0},
    }
    return MeasureQualityd()(data)["qc"]


def test_the_template_measures_itself_as_perfect():
    template = template_tissues()[0]
    qc = measure(template, np.eye(4))
    assert qc["other"] == 1.0
    assert qc["mask_in_template"] == qc["template_covered"] == qc["scale"] == 1
    assert qc["stretch"] == pytest.approx(1)
    assert qc["rotation_deg"] == pytest.approx(0, abs=1e-3)
    assert qc["brain_volume_ml"] == pytest.approx(template.sum() * 0.008)
    assert qc["voxel_x_mm"] == qc["largest_voxel_mm"] == 2


def test_volume_and_scale_of_a_smaller_brain():
    template = template_tissues()[0]
    shrink = np.diag([0.9, 0.9, 0.9, 1.0])
    qc = measure(template, np.linalg.inv(shrink), shrink @ MODEL_GRID.affine)
    assert qc["scale"] == pytest.approx(0.9**-3)
    assert qc["brain_volume_ml"] == pytest.approx(template.sum() * 0.008 * 0.9**3)
    assert qc["mask_in_template"] > 0.99
    assert qc["template_covered"] > 0.99


def test_turn_and_stretch():
    turn = np.eye(4)
    turn[:2, :2] = [[0.5, -(0.75**0.5)], [0.75**0.5, 0.5]]
    qc = measure(template_tissues()[0], turn @ np.diag([1.0, 1.2, 1.0, 1.0]))
    assert qc["rotation_deg"] == pytest.approx(60)
    assert qc["stretch"] == pytest.approx(1.2)


def test_a_cut_brain_and_one_with_neck_are_told_apart():
    template = template_tissues()[0]
    cut = template.copy()
    cut[:, :, 40:] = False
    qc = measure(cut, np.eye(4))
    assert qc["mask_in_template"] == 1
    assert qc["template_covered"] < 0.6
    qc = measure(np.ones_like(template), np.eye(4))
    assert qc["template_covered"] == 1
    assert qc["mask_in_template"] < 0.6


def test_an_empty_mask_measures_as_nothing():
    qc = measure(np.zeros_like(template_tissues()[0]), np.eye(4))
    assert qc["brain_volume_ml"] == qc["template_covered"] == 0


def test_judgement():
    assert judge(GOOD) == ([], [])
    assert judge({}) == ([], [])
    warnings, failures = judge(GOOD | {"registration_ncc": 0.4})
    assert failures == []
    assert warnings == ["the aligned brain hardly resembles the template (registration_ncc 0.4)"]
    warnings, failures = judge(GOOD | {"registration_ncc": 0.1})
    assert warnings == []
    assert len(failures) == 1
    assert judge(GOOD | {"scale": float("nan")})[1] != []


def test_what_is_good_is_usable():
    for limit in LIMITS:
        assert limit.usable[0] <= limit.good[0] < limit.good[1] <= limit.usable[1]
