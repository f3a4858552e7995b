import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data.meta_tensor import MetaTensor

from brainage.preprocess.itk import array_from_image, image_from_array, image_from_tensor, tensor_like
from brainage.preprocess.registration import matrix_of, transform_of


@pytest.fixture
def affine():
    return np.array([[0.0, -2, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 11], [0, 0, 0, 1]])


def test_voxels_keep_their_place_in_the_world(affine):
    array = np.zeros((4, 5, 6), np.float32)
    array[1, 2, 3] = 9
    image = image_from_array(array, affine)
    x, y, z, _ = affine @ [1, 2, 3, 1]
    # ITK's world has left and back as positive.
    assert image.TransformIndexToPhysicalPoint((1, 2, 3)) == pytest.approx((-x, -y, z))
    assert image.GetPixel(1, 2, 3) == 9
    np.testing.assert_array_equal(array_from_image(image), array)


def test_masks_stay_masks(affine):
    mask = np.ones((2, 3, 4), bool)
    assert array_from_image(image_from_array(mask, affine)).dtype == np.uint8
    assert array_from_image(image_from_array(mask.astype(np.float64), affine)).dtype == np.float32


def test_tensors_there_and_back(affine):
    tensor = MetaTensor(torch.rand(1, 3, 4, 5), affine=torch.from_numpy(affine))
    again = tensor_like(array_from_image(image_from_tensor(tensor)), tensor)
    assert torch.equal(again.as_tensor(), tensor.as_tensor())
    assert torch.equal(again.affine, tensor.affine)


@given(st.lists(st.floats(-3, 3), min_size=12, max_size=12))
def test_matrix_and_transform_are_inverse(values):
    matrix = np.eye(4)
    matrix[:3] = np.reshape(values, (3, 4))
    matrix[:3, :3] += 10 * np.eye(3)
    np.testing.assert_allclose(matrix_of(transform_of(matrix)), matrix, atol=1e-9)


def test_a_transform_moves_points_of_the_ras_world():
    matrix = np.eye(4)
    matrix[:3, 3] = [1, 2, 3]
    assert transform_of(matrix).TransformPoint((0.0, 0.0, 0.0)) == (-1, -2, 3)
