"""Nothing depends on how a scan was stored: all 48 orientations of one brain give the same volume."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.orientations import apply_orientation, inv_ornt_aff

from brainage.anatomy.grid import MODEL_GRID
from brainage.preprocess.geometry import to_canonical, to_original
from brainage.preprocess.itk import image_from_array
from brainage.preprocess.registration import register_affine
from brainage.preprocess.resample import ResampleToModelGridd
from brainage.preprocess.template import template_brain

ORDERS = list(permutations(range(3)))
SIGNS = list(product((1, -1), repeat=3))


def stored_as(array, affine, order, signs):
    """The same image with its axes permuted and flipped, as another scanner would store it."""
    orientation = np.array(list(zip(order, signs, strict=True)))
    return apply_orientation(array, orientation), affine @ inv_ornt_aff(orientation, array.shape)


def on_model_grid(array, affine):
    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None]
    world = torch.from_numpy(affine)
    data = {
        "image": MetaTensor(tensor, affine=world),
        "brain_mask": MetaTensor((tensor > 0).to(torch.uint8), affine=world),
        "native_to_mni": np.eye(4),
    }
    return ResampleToModelGridd()(data)["volume"][0].numpy()


@pytest.fixture(scope="module")
def brain(template):
    return template.get_fdata(dtype=np.float32), template.affine


@pytest.fixture(scope="module")
def expected(brain):
    return on_model_grid(*brain)


@pytest.mark.parametrize("order", ORDERS)
def test_the_volume_is_the_same(brain, expected, order):
    for signs in SIGNS:
        volume = on_model_grid(*stored_as(*brain, order, signs))
        np.testing.assert_allclose(volume, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("order", ORDERS)
def test_canonical_axes_and_back(order):
    plain, affine = np.arange(60.0, dtype=np.float32).reshape(3, 4, 5), np.diag([1.0, 2.0, 3.0, 1.0])
    for signs in SIGNS:
        array, stored_affine = stored_as(plain, affine, order, signs)
        canonical, canonical_affine = to_canonical(array, stored_affine)
        np.testing.assert_array_equal(canonical, plain)
        np.testing.assert_allclose(canonical_affine, affine, atol=1e-12)
        np.testing.assert_array_equal(to_original(canonical, stored_affine), array)


@pytest.mark.parametrize("order", ORDERS)
def test_itk_sees_every_voxel_in_its_place(order):
    # Half of these are left-handed, which ITK must keep rather than mirror.
    for signs in SIGNS:
        array, affine = stored_as(
            np.random.default_rng(0).random((3, 4, 5), dtype=np.float32),
            np.diag([1.0, 1.5, 2.5, 1.0]),
            order,
            signs,
        )
        image = image_from_array(array, affine)
        for voxel in ((0, 0, 0), (2, 1, 2), (1, 2, 1)):
            x, y, z, _ = affine @ [*voxel, 1]
            assert image.TransformIndexToPhysicalPoint(voxel) == pytest.approx((-x, -y, z))
            assert image[voxel] == array[voxel]


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1)])
def test_left_stays_left(brain, signs):
    array, affine = brain
    x = affine[0, 3] + affine[0, 0] * np.arange(array.shape[0])
    marked = np.where(x[:, None, None] < 0, 3 * array, array)  # the subject's left, at negative x
    volume = on_model_grid(*stored_as(marked, affine, (0, 1, 2), signs))
    middle = MODEL_GRID.shape[0] // 2
    assert volume[: middle - 2].mean() > 2 * volume[middle + 2 :].mean()


def test_registration_gives_the_same_matrix_twice_and_no_mirror():
    one, _ = register_affine(template_brain())
    two, _ = register_affine(template_brain())
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert np.linalg.det(one[:3, :3]) > 0
