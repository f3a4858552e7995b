import itertools

import nibabel as nib
import numpy as np
import pytest

from brainage.preprocess.geometry import to_canonical, to_original

AXES = [
    "".join(codes)
    for order in itertools.permutations(["RL", "AP", "SI"])
    for codes in itertools.product(*order)
]


@pytest.mark.parametrize("axes", AXES)
def test_all_48_orientations_show_the_same_head(axes):
    rng = np.random.default_rng(0)
    array = rng.normal(size=(4, 5, 6))
    affine = np.array([[1.9, 0.1, 0, -40], [-0.1, 1.9, 0.2, 7], [0, -0.2, 2.9, 11], [0, 0, 0, 1]])
    codes = nib.orientations.axcodes2ornt
    turned = nib.Nifti1Image(array, affine).as_reoriented(
        nib.orientations.ornt_transform(codes("RAS"), codes(axes))
    )
    assert "".join(nib.aff2axcodes(turned.affine)) == axes
    stored = np.asarray(turned.dataobj)
    canonical, canonical_affine = to_canonical(stored, turned.affine)
    np.testing.assert_array_equal(canonical, array)
    np.testing.assert_allclose(canonical_affine, affine)
    np.testing.assert_array_equal(to_original(canonical, turned.affine), stored)
