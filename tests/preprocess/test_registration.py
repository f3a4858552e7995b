"""Affine registration finds an affine that is known, and matrices are the transforms they claim to be."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from brainage.preprocess.itk import array_from_image, image_from_array
from brainage.preprocess.registration import matrix_of, register_affine, template_brain, transform_of


def affine_matrix(degrees=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0)):
    """(4, 4) RAS mm: scale, then rotation about z, y and x, then shift."""
    matrix = np.diag([*scale, 1.0])
    for axis, angle in enumerate(np.deg2rad(degrees)):
        one, other = [i for i in range(3) if i != axis]
        turn = np.eye(4)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    matrix[:3, 3] = shift
    return matrix


angles, scales, shifts = st.floats(-60, 60), st.floats(0.6, 1.6), st.floats(-100, 100)


@settings(max_examples=50)
@given(
    st.tuples(angles, angles, angles), st.tuples(scales, scales, scales), st.tuples(shifts, shifts, shifts)
)
def test_matrix_and_transform_are_each_other_s_inverse(degrees, scale, shift):
    matrix = affine_matrix(degrees, scale, shift)
    np.testing.assert_allclose(matrix_of(transform_of(matrix)), matrix, atol=1e-9)
    # A point in RAS through the matrix is the point in LPS through the transform.
    point = np.array([10.0, -20.0, 30.0])
    x, y, z = (matrix @ [*point, 1.0])[:3]
    moved = transform_of(matrix).TransformPoint((-point[0], -point[1], point[2]))
    assert moved == pytest.approx((-x, -y, z), abs=1e-6)


def test_matrix_of_a_transform_about_a_centre():
    turn = sitk.Similarity3DTransform()
    turn.SetCenter((10.0, 20.0, 30.0))
    turn.SetRotation((0.0, 0.0, 1.0), float(np.deg2rad(90)))
    # About (-10, -20) in RAS a quarter turn takes (-9, -20) to (-10, -19).
    np.testing.assert_allclose(matrix_of(turn) @ [-9, -20, 30, 1], [-10, -19, 30, 1], atol=1e-9)


@pytest.mark.parametrize(
    "native_to_mni",
    [
        affine_matrix(degrees=(-12, 5, 8), scale=(1.1, 1.15, 1.05), shift=(15, -30, 20)),
        affine_matrix(degrees=(15, -4, -6), scale=(0.95, 0.92, 0.9), shift=(-40, 25, -35)),
    ],
    ids=["small brain", "large brain"],
)
def test_recovers_a_known_affine(native_to_mni):
    template = template_brain()
    # A scan that the known matrix takes to the template, on a grid of its own around the brain.
    native_grid = image_from_array(np.zeros((110, 120, 110), np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    centre = np.linalg.inv(native_to_mni) @ [0, -18, 10, 1]
    x, y, z = centre[:3] - [110, 120, 110]
    native_grid.SetOrigin((-x, -y, z))
    scan = sitk.Resample(template, native_grid, transform_of(native_to_mni), sitk.sitkLinear)
    found, ncc = register_affine(scan)
    assert ncc > 0.95
    # Corners of the brain's bounding box, in the scan's space: all of them must land within 2 mm (a voxel).
    box = np.array([[a, b, c, 1.0] for a in (-60, 60) for b in (-90, 60) for c in (-40, 70)])
    native = box @ np.linalg.inv(native_to_mni).T
    errors = np.linalg.norm((native @ found.T - box)[:, :3], axis=1)
    assert errors.max() < 2.0


def test_is_reproducible_and_never_mirrors():
    template = template_brain()
    one, ncc = register_affine(template)
    other, again = register_affine(template)
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert ncc == pytest.approx(again)
    assert np.linalg.det(one[:3, :3]) > 0


def test_template_is_a_brain_on_zero():
    array = array_from_image(template_brain())
    assert array.max() <= 1.0
    assert array[0].max() == array[-1].max() == 0
    litres = (array > 0).sum() * 8 / 1e6
    assert 1.6 < litres < 2.1  # the ICBM average brain is 1.9 l
