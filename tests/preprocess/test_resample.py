import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from brainage.anatomy.grid import MODEL_GRID
from brainage.preprocess import resample as resample_module
from brainage.preprocess.resample import ResampleToModelGridd


def resample(image, mask, affine, native_to_mni):
    def tensor(array):
        return MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(affine))

    data = {"image": tensor(image), "brain_mask": tensor(mask), "native_to_mni": native_to_mni}
    volume = ResampleToModelGridd()(data)["volume"]
    assert volume.shape == (1, *MODEL_GRID.shape)
    np.testing.assert_allclose(volume.affine.numpy(), MODEL_GRID.affine)
    return volume[0].numpy()


@pytest.fixture
def ball():
    """Centre of MODEL_GRID and distance of its voxels from it, mm."""
    index = np.indices(MODEL_GRID.shape).reshape(3, -1)
    world = MODEL_GRID.affine[:3, :3] @ index + MODEL_GRID.affine[:3, 3:]
    centre = world.mean(axis=1, keepdims=True)
    return centre[:, 0], np.linalg.norm(world - centre, axis=0).reshape(MODEL_GRID.shape)


def test_the_model_grid_itself_stays_as_it_is(ball):
    _, radius = ball
    mask = (radius < 60).astype(np.uint8)
    image = (100 + radius).astype(np.float32)
    volume = resample(image, mask, MODEL_GRID.affine, np.eye(4))
    np.testing.assert_allclose(volume, image * mask, atol=1e-3)


@pytest.mark.parametrize("size", [1.0, 1.4, 3.0])
def test_a_ball_on_other_voxels_in_another_place_comes_out_the_same(ball, size):
    centre, radius = ball
    native_to_mni = np.diag([1.25, 1.25, 1.25, 1.0])
    native_to_mni[:3, 3] = [20, -10, 30]
    native_centre = (centre - native_to_mni[:3, 3]) / 1.25
    count = int(130 / size)
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = native_centre - size * (count - 1) / 2
    index = np.indices((count,) * 3)
    distance = np.linalg.norm(size * (index - (count - 1) / 2), axis=0) * 1.25
    volume = resample(
        (100 + distance).astype(np.float32), (distance < 60).astype(np.uint8), affine, native_to_mni
    )
    inside = radius < 60 - 2 * size
    np.testing.assert_allclose(volume[inside], 100 + radius[inside], atol=2.5)
    assert (volume[radius > 60 + 2 * size] == 0).all()
    # Voxels that are partly brain get the brain's intensity, not half of it.
    assert volume[volume > 0].min() > 90


def test_the_inverse_brings_a_map_back_onto_the_scan():
    """A map that rises linearly in MNI space is its value at the mapped place, on the scan's own voxels."""
    native_to_mni = np.array([[1.1, 0.1, 0, 4], [-0.1, 1.0, 0, -20], [0, 0, 0.9, 6], [0, 0, 0, 1]])
    index = np.indices(MODEL_GRID.shape).reshape(3, -1)
    world = MODEL_GRID.affine[:3, :3] @ index + MODEL_GRID.affine[:3, 3:]
    slope = np.array([[0.5, -0.2, 0.3]])
    values = (100 + slope @ world).reshape(MODEL_GRID.shape).astype(np.float32)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -40
    scan = MetaTensor(torch.ones(1, 20, 22, 24), affine=torch.from_numpy(affine))
    volume = MetaTensor(torch.from_numpy(values)[None], affine=torch.from_numpy(MODEL_GRID.affine))
    back = ResampleToModelGridd().inverse({"image": scan, "volume": volume, "native_to_mni": native_to_mni})
    assert back["volume"].shape == scan.shape
    np.testing.assert_allclose(back["volume"].affine.numpy(), affine)
    voxels = np.indices(scan.shape[1:]).reshape(3, -1)
    there = native_to_mni @ affine @ np.vstack([voxels, np.ones(voxels.shape[1])])
    expected = 100 + slope @ there[:3]
    np.testing.assert_allclose(back["volume"].numpy().reshape(1, -1), expected, atol=1e-2)


def test_the_blur_in_a_box_has_the_bytes_of_the_blur_of_all(monkeypatch):
    """Also where the brain reaches the edge of the field of view."""
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 70, 80), np.uint8)
    mask[:14, 20:40, 30:52] = rng.random((14, 20, 22)) < 0.9
    image = (mask * rng.uniform(1, 1000, mask.shape)).astype(np.float32)
    affine = np.diag([1.0, 0.8, 1.0, 1.0])
    affine[:3, 3] = [-20, -28, -32]
    volume = resample(image, mask, affine, np.eye(4))
    _, size = resample_module._box_around(mask, (1.0, 0.8, 1.0))
    assert np.prod(size) < 0.5 * mask.size
    monkeypatch.setattr(resample_module, "_box_around", lambda mask, _: ([0, 0, 0], list(mask.shape)))
    assert volume.any()
    np.testing.assert_array_equal(resample(image, mask, affine, np.eye(4)), volume)


def test_nothing_in_the_mask_is_nothing_in_the_volume():
    mask = np.zeros((30, 30, 30), np.uint8)
    assert not resample(mask.astype(np.float32), mask, MODEL_GRID.affine, np.eye(4)).any()
