"""Maps on their way MNI -> native -> MNI, over all 48 orientations."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainage.anatomy.grid import MODEL_GRID
from brainage.anatomy.projection import to_model_grid, to_native, tokens_to_image
from brainage.errors import ConfigError

CODES = [
    "".join(codes)
    for axes in permutations(("LR", "PA", "IS"))
    for codes in product(*axes)
]  # fmt: skip


def scan_grid(codes, spacing=(3.0, 2.5, 3.5), centre=(4.0, -14.0, 9.0), size=(170, 206, 176)):
    """Shape and affine of a scan with the given axis codes that covers the head (sizes along R, A, S)."""
    ornt = nib.orientations.axcodes2ornt(tuple(codes))
    shape = np.ceil(np.array(size) / spacing).astype(int)[ornt[:, 0].astype(int)]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel_axis, (world_axis, sign) in enumerate(ornt):
        affine[int(world_axis), voxel_axis] = sign * spacing[int(world_axis)]
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((shape - 1) / 2)
    assert "".join(nib.aff2axcodes(affine)) == codes
    return tuple(int(n) for n in shape), affine


def small_pose(rotation=(0.1, -0.06, 0.15), shift=(5.0, -8.0, 12.0), scale=1.06):
    """(4, 4) native world -> MNI world: turned by some degrees, moved, scaled."""
    cx, cy, cz = np.cos(rotation)
    sx, sy, sz = np.sin(rotation)
    turn = (
        np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    )
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = scale * turn, shift
    return matrix


@pytest.fixture(scope="module")
def token_map():
    index = np.flatnonzero(np.random.default_rng(0).random(1200) < 0.6)
    return tokens_to_image(np.arange(len(index)), index, 8)


def test_tokens_lie_at_the_centres_of_their_patches():
    values = np.arange(3.0)
    image = tokens_to_image(values, np.array([0, 1, 120]), 8)
    assert image.shape == (10, 12, 10)
    data = image.get_fdata()
    assert (data[0, 0, 0], data[0, 0, 1], data[1, 0, 0]) == (0, 1, 2)
    assert np.isnan(data).sum() == 1197
    first_patch = [np.array(MODEL_GRID.origin) + 2 * np.array(corner) for corner in ((0, 0, 0), (7, 7, 7))]
    np.testing.assert_allclose(image.affine[:3, 3], np.mean(first_patch, axis=0))


def test_on_the_model_grid_a_token_fills_its_patch(token_map):
    fine = to_model_grid(token_map)
    assert fine.shape == MODEL_GRID.shape
    blocks = np.repeat(np.repeat(np.repeat(token_map.get_fdata(), 8, 0), 8, 1), 8, 2)
    np.testing.assert_array_equal(fine.get_fdata(), blocks)


def test_linear_covers_the_same_voxels_and_stays_between_the_values(token_map):
    nearest, linear = to_model_grid(token_map).get_fdata(), to_model_grid(token_map, order=1).get_fdata()
    np.testing.assert_array_equal(np.isnan(nearest), np.isnan(linear))
    assert np.nanmin(nearest) <= np.nanmin(linear) <= np.nanmax(linear) <= np.nanmax(nearest)
    constant = tokens_to_image(np.full(40, 3.5), np.arange(500, 540), 8)
    np.testing.assert_allclose(np.unique(to_model_grid(constant, order=1).get_fdata())[0], 3.5, rtol=1e-6)


@pytest.mark.parametrize("codes", CODES)
def test_a_left_only_map_stays_left_in_every_orientation(codes):
    data = np.full((10, 12, 10), np.nan, np.float32)
    data[1:4, 3:9, 3:7] = 1  # MNI x from -63 to -17
    left = nib.Nifti1Image(data, MODEL_GRID.coarsen(8).affine)
    shape, affine = scan_grid(codes)
    native = to_native(left, small_pose(scale=1.0), shape, affine)
    assert native.shape == shape
    np.testing.assert_allclose(native.affine, affine)
    voxels = np.argwhere(np.isfinite(native.get_fdata()))
    assert len(voxels) > 500
    canonical = nib.as_closest_canonical(native)
    middle = canonical.shape[0] / 2
    assert np.mean(np.argwhere(np.isfinite(canonical.get_fdata()))[:, 0] < middle) > 0.99
    world = nib.affines.apply_affine(small_pose(scale=1.0) @ affine, voxels)
    assert (world[:, 0] < -16).all()


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSR", "ILP", "SAL", "ARI"])
def test_there_and_back(token_map, codes):
    shape, affine = scan_grid(codes)
    pose = small_pose()
    native = to_native(token_map, pose, shape, affine)
    back = to_native(native, np.linalg.inv(pose), MODEL_GRID.shape, MODEL_GRID.affine).get_fdata()
    direct = to_model_grid(token_map).get_fdata()
    inside = np.isfinite(direct) & np.isfinite(back)
    # Voxels at the borders of patches may take the neighbour's value: the scan's grid is coarse there.
    assert (direct == back)[inside].mean() > 0.7
    whole = [token for token in range(0, 700, 37) if np.isfinite(back[direct == token]).sum() > 400]
    assert len(whole) > 8
    for token in whole:
        assert np.nanmedian(back[direct == token]) == token


@given(
    code=st.sampled_from(CODES),
    turn=st.tuples(*[st.floats(-0.4, 0.4)] * 3),
    shift=st.tuples(*[st.floats(-20, 20)] * 3),
    scale=st.floats(0.85, 1.2),
    xyz=st.tuples(st.floats(-60, 60), st.floats(-90, 55), st.floats(-50, 70)),
)
def test_a_point_keeps_its_value_through_any_pose(code, turn, shift, scale, xyz):
    """A map that is linear in MNI x, y, z reads, at a native voxel, the MNI position of that voxel."""
    pose = small_pose(turn, shift, scale)
    _, affine = scan_grid(code)
    voxel = np.linalg.inv(pose @ affine) @ [*xyz, 1]
    # A scan of one voxel, at the point.
    single = affine.copy()
    single[:3, 3] = (affine @ voxel)[:3]
    grid = MODEL_GRID.coarsen(8)
    for axis in range(3):
        ramp = grid.origin[axis] + grid.spacing * np.indices(grid.shape)[axis]
        image = nib.Nifti1Image(ramp.astype(np.float32), grid.affine)
        value = to_native(image, pose, (1, 1, 1), single, order=1).get_fdata().item()
        assert value == pytest.approx(xyz[axis], abs=1e-2)


def test_what_cannot_be_projected_is_refused(token_map):
    with pytest.raises(ConfigError, match="shape of token_index_N"):
        tokens_to_image(np.ones(3), np.arange(4), 8)
    with pytest.raises(ConfigError, match="order"):
        to_model_grid(token_map, order=3)
