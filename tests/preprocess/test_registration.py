import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor

from brainage.preprocess.itk import array_from_image, matrix_of
from brainage.preprocess.registration import RegisterToTemplated
from brainage.preprocess.template import template_brain

BRAIN_MM = np.array([[0, -18, 8, 1], [60, -20, 0, 1], [-60, -20, 0, 1], [0, 60, 10, 1], [0, -95, 0, 1],
                     [0, -20, 70, 1], [20, -60, -50, 1], [-30, 20, -20, 1]], float).T  # fmt: skip


def turn(axis, degrees):
    first, second = (index for index in range(3) if index != axis)
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def placed(template, to_world):
    """The template brain elsewhere in the world, and larger or smaller, without resampling it."""
    array = torch.from_numpy(template.get_fdata(dtype=np.float32))[None]
    affine = torch.from_numpy(to_world @ template.affine)
    return {
        "image": MetaTensor(array, affine=affine),
        "brain_mask": MetaTensor((array > 0).to(torch.uint8), affine=affine),
    }


@pytest.mark.parametrize(
    ("turned", "scales", "shift"),
    [
        (turn(0, 15) @ turn(2, -10), [0.85, 0.9, 0.92], [30, -45, 60]),
        (turn(1, 12) @ turn(0, -20), [1.05, 1.0, 0.95], [-8, 12, -100]),
    ],
)
def test_a_known_affine_is_recovered_within_2_mm(template, turned, scales, shift):
    to_world = turned @ np.diag([*scales, 1.0])
    to_world[:3, 3] = shift
    data = RegisterToTemplated()(placed(template, to_world) | {"qc": {"other": 1.0}})
    back = data["native_to_mni"] @ to_world @ BRAIN_MM
    assert np.linalg.norm(back - BRAIN_MM, axis=0).max() < 2
    assert data["qc"]["registration_ncc"] > 0.95
    assert data["qc"]["other"] == 1.0


def test_matrix_of_a_transform_about_a_centre():
    quarter = sitk.Similarity3DTransform()
    quarter.SetCenter((10.0, 20.0, 30.0))
    quarter.SetRotation((0.0, 0.0, 1.0), float(np.deg2rad(90)))
    # About (-10, -20) in RAS a quarter turn takes (-9, -20) to (-10, -19).
    np.testing.assert_allclose(matrix_of(quarter) @ [-9, -20, 30, 1], [-10, -19, 30, 1], atol=1e-9)


def test_the_template_is_a_brain_on_zero():
    array = array_from_image(template_brain())
    assert array.max() <= 1.0
    assert array[0].max() == array[-1].max() == 0
    assert 1.6 < (array > 0).sum() * 8e-6 < 2.1  # litres
