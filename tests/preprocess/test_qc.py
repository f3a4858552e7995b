import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from brainage.anatomy.grid import MODEL_GRID
from brainage.config import PreprocessRecipe, QcRecipe, parse_recipe
from brainage.errors import ConfigError
from brainage.preprocess.qc import REASONS, MeasureQualityd, judge
from brainage.preprocess.template import template_tissues

GOOD = {
    "registration_ncc": 0.6, "brain_volume_ml": 1400, "mask_in_template": 0.93, "template_covered": 0.97,
    "scale": 1.4, "stretch": 1.1, "rotation_deg": 10, "grey_white_ratio": 0.62, "largest_voxel_mm": 1.0,
}  # fmt: skip


def measure(mask, native_to_mni, affine=MODEL_GRID.affine, image=None):
    tensor = MetaTensor(torch.from_numpy(mask.astype(np.uint8))[None], affine=torch.from_numpy(affine))
    data = {
        "image": tensor.float() if image is None else MetaTensor(image[None], affine=tensor.affine),
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
    assert qc["mask_in_template"] == pytest.approx(1)
    assert qc["template_covered"] < 0.6
    qc = measure(np.ones_like(template), np.eye(4))
    assert qc["template_covered"] == 1
    assert qc["mask_in_template"] < 0.6


def test_what_the_field_of_view_cuts_off():
    template = template_tissues()[0]
    whole = measure(template, np.eye(4))
    assert whole["brain_in_view"] == 1
    assert whole["empty_in_mask"] == 0
    assert whole["cut_cm2"] < 1
    # The lower 32 of 80 layers are not in the file.
    moved = MODEL_GRID.affine.copy()
    moved[2, 3] += 32 * 2
    qc = measure(template[:, :, 32:], np.eye(4), moved)
    assert qc["brain_in_view"] == pytest.approx(template[:, :, 32:].sum() / template.sum())
    assert qc["cut_cm2"] == pytest.approx(template[:, :, 32].sum() * 0.04)


def test_a_crown_outside_the_field_of_view_is_warned_of():
    template = template_tissues()[0]
    top = np.flatnonzero(template.any(axis=(0, 1)))[-1] + 1
    share = {mm: measure(template[:, :, : top - mm // 2], np.eye(4))["brain_in_view"] for mm in (4, 16)}
    assert judge({"brain_in_view": share[4]}, QcRecipe()) == ([], [])
    (clause,), failures = judge({"brain_in_view": share[16]}, QcRecipe())
    assert clause.startswith("part of the brain lies outside the field of view")
    assert failures == []


def test_what_is_black_in_the_mask():
    template = template_tissues()[0]
    image = torch.full(template.shape, 100.0)
    image[:, :, :30] = 0
    qc = measure(template, np.eye(4), image=image)
    assert qc["empty_in_mask"] == pytest.approx(template[:, :, :30].sum() / template.sum())


def test_an_empty_mask_measures_as_nothing():
    qc = measure(np.zeros_like(template_tissues()[0]), np.eye(4))
    assert qc["brain_volume_ml"] == qc["template_covered"] == 0
    assert qc["empty_in_mask"] == 1


def test_judgement():
    assert judge(GOOD, QcRecipe()) == ([], [])
    assert judge({}, QcRecipe()) == ([], [])
    warnings, failures = judge(GOOD | {"registration_ncc": 0.4}, QcRecipe())
    assert failures == []
    assert warnings == ["the aligned brain hardly resembles the template (registration_ncc 0.4)"]
    warnings, failures = judge(GOOD | {"registration_ncc": 0.1}, QcRecipe())
    assert warnings == []
    assert len(failures) == 1
    assert judge(GOOD | {"scale": float("nan")}, QcRecipe())[1] != []


def test_every_limit_has_a_reason_and_every_reason_a_limit():
    assert set(REASONS) == set(QcRecipe.model_fields)
    for name, limit in QcRecipe():
        for end, reason in zip(range(2), REASONS[name], strict=True):
            bounded = limit.good[end] is not None or limit.usable[end] is not None
            assert bool(reason) == bounded, name


def test_limits_come_from_the_recipe():
    recipe = parse_recipe(
        {"qc": {"rotation_deg": None, "cjv": {"good": [None, 0.2], "usable": [None, 0.5]}}}, PreprocessRecipe
    )
    assert judge(GOOD | {"rotation_deg": 170}, recipe.qc) == ([], [])
    assert [len(part) for part in judge(GOOD | {"cjv": 0.3}, recipe.qc)] == [1, 0]
    assert [len(part) for part in judge(GOOD | {"cjv": 0.6}, recipe.qc)] == [0, 1]


@pytest.mark.parametrize(
    "limit",
    [
        {"good": [0.5, None]},
        {"good": [0.5, None], "usable": [0.6, None]},
        {"good": [None, 3], "usable": [None, 2]},
        {"good": [0.5, None], "usable": [0.6, None], "other": 1},
    ],
)
def test_limits_that_make_no_sense_are_refused(limit):
    with pytest.raises(ConfigError):
        parse_recipe({"qc": {"registration_ncc": limit}}, PreprocessRecipe)
    with pytest.raises(ConfigError, match="registration_nc"):
        parse_recipe({"qc": {"registration_nc": None}}, PreprocessRecipe)
