"""What reaches the model grid does not depend on how the scan was stored."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.orientations import apply_orientation, inv_ornt_aff

from brainage.anatomy.grid import MODEL_GRID
from brainage.preprocess.itk import array_from_image
from brainage.preprocess.registration import template_brain
from brainage.preprocess.resample import ResampleToModelGridd


def sample(array, affine, matrix=None):
    """Data dict of a scan whose every voxel above 0 is brain."""
    affine = torch.from_numpy(np.asarray(affine, dtype=np.float64))
    tensor = MetaTensor(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None], affine=affine)
    mask = MetaTensor((tensor.as_tensor() > 0).to(torch.uint8), affine=affine)
    return {
        "image": tensor,
        "brain_mask": mask,
        "native_to_mni": np.eye(4) if matrix is None else matrix,
    }


def on_model_grid(*arguments):
    return ResampleToModelGridd()(sample(*arguments))["volume"]


def world_of(image):
    """(4, 4) voxel -> RAS mm of an ITK image."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@pytest.fixture(scope="module")
def template():
    """The template brain (X, Y, Z) and its affine."""
    image = template_brain()
    return array_from_image(image), world_of(image)


@pytest.fixture(scope="module")
def expected(template):
    return on_model_grid(*template)


def test_is_on_the_model_grid(expected):
    assert expected.shape == (1, *MODEL_GRID.shape)
    assert expected.dtype == torch.float32
    np.testing.assert_array_equal(expected.affine.numpy(), MODEL_GRID.affine)
    assert torch.isfinite(expected).all()
    assert (expected > 0).float().mean() > 0.3


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_all_orientations_give_the_same_volume(template, expected, order):
    array, affine = template
    for signs in product((1, -1), repeat=3):
        orientation = np.array(list(zip(order, signs, strict=True)))
        turned = apply_orientation(array, orientation)
        volume = on_model_grid(turned, affine @ inv_ornt_aff(orientation, array.shape))
        np.testing.assert_allclose(volume.numpy(), expected.numpy(), atol=1e-4)


def test_left_stays_left(template):
    array, affine = template
    marked = array.copy()
    # The half at negative x, the subject's left, brighter.
    x = affine[0, 3] + affine[0, 0] * np.arange(array.shape[0])
    marked[x < 0] *= 3
    volume = on_model_grid(marked, affine)[0].numpy()
    middle = MODEL_GRID.shape[0] // 2
    assert volume[: middle - 2].mean() > 2 * volume[middle + 2 :].mean()


def test_applies_the_matrix_from_native_to_mni(template, expected):
    array, affine = template
    shift = np.eye(4)
    shift[:3, 3] = (10.0, -6.0, 4.0)
    # A scan stored 10 mm to the left, 6 mm to the front and 4 mm too low.
    volume = on_model_grid(array, np.linalg.inv(shift) @ affine, shift)
    np.testing.assert_allclose(volume.numpy(), expected.numpy(), atol=1e-4)


def test_mean_intensity_does_not_sink_at_the_mask_s_edge():
    array = np.zeros((60, 60, 60), dtype=np.float32)
    array[10:50, 10:50, 10:50] = 7.0
    affine = np.eye(4)
    affine[:3, 3] = (-30.0, -50.0, -30.0)
    volume = on_model_grid(array, affine)[0].numpy()
    inside = volume[volume > 0]
    # Linear interpolation alone would mix the surface with the background; dividing by the share mends it.
    np.testing.assert_allclose(inside, 7.0, rtol=1e-3)
    litres = inside.size * MODEL_GRID.spacing**3 / 1e6
    assert litres == pytest.approx(0.064, rel=0.1)


def test_fine_and_coarse_scans_of_one_brain_look_alike(template, expected):
    array, affine = template
    fine = array.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    finer = affine.copy()
    finer[:3, :3] /= 2
    finer[:3, 3] -= 0.25 * np.diag(affine)[:3]
    volume = on_model_grid(fine, finer).numpy()
    assert np.corrcoef(volume.ravel(), expected.numpy().ravel())[0, 1] > 0.99
