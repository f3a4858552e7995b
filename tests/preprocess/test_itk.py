import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data.meta_tensor import MetaTensor

from brainage.preprocess.itk import (
    array_from_image,
    image_from_array,
    image_from_tensor,
    masked_image,
    matrix_of,
    packed,
    tensor_like,
    transform_of,
)


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


@given(
    st.tuples(*[st.integers(0, 5)] * 3),
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([1, -1])] * 3),
    st.sampled_from([np.float32, np.uint8]),
)
def test_packing_changes_the_order_in_memory_alone(shape, order, steps, kind):
    array = np.arange(np.prod(shape)).astype(kind).reshape(shape)
    view = array.transpose(order)[:: steps[0], :: steps[1], :: steps[2]]
    found = packed(view)
    assert found.flags.c_contiguous
    assert found.dtype == kind
    np.testing.assert_array_equal(found, view)


def test_a_masked_image_is_zero_outside(affine):
    values, mask = np.random.default_rng(0).random((3, 4, 5), np.float32), np.zeros((3, 4, 5), np.uint8)
    mask[1, 2] = 1
    image, inside = (
        MetaTensor(torch.from_numpy(a)[None], affine=torch.from_numpy(affine)) for a in (values, mask)
    )
    np.testing.assert_array_equal(array_from_image(masked_image(image, inside)), np.where(mask, values, 0))


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
