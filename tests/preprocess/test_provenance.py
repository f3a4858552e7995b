"""The affine in ITK's format, and the record of steps."""

from __future__ import annotations

import json

import numpy as np
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from brainage.config import PreprocessRecipe
from brainage.preprocess.chain import preprocess_chain
from brainage.preprocess.provenance import same_software, software_versions, steps_of, write_itk_affine

NUMBERS = st.floats(-50, 50, allow_nan=False)


@given(st.lists(NUMBERS, min_size=12, max_size=12), st.lists(NUMBERS, min_size=3, max_size=3))
def test_itk_maps_as_the_matrix_does(tmp_path_factory, numbers, point):
    matrix = np.eye(4)
    matrix[:3] = np.array(numbers).reshape(3, 4)
    matrix[:3, :3] = np.eye(3) + matrix[:3, :3] / 200
    path = tmp_path_factory.mktemp("xfm") / "x.txt"
    write_itk_affine(path, matrix)
    transform = sitk.ReadTransform(str(path))
    flip = np.array([-1.0, -1.0, 1.0])
    template = matrix[:3, :3] @ point + matrix[:3, 3]
    # ITK asks with a point of the template, in LPS, and gets the scan's.
    np.testing.assert_allclose(transform.TransformPoint(flip * template), flip * point, atol=1e-6)


def test_steps_are_recorded_with_their_settings():
    steps = steps_of(preprocess_chain(PreprocessRecipe(n4_shrink_mm=5)).transforms)
    named = {step["Name"]: step["Parameters"] for step in steps}
    assert named["N4BiasCorrectiond"]["shrink_mm"] == 5
    assert named["BrainExtractiond"] == {"mode": "auto", "template": None}
    json.dumps(steps)


def test_software_that_promises_other_bytes():
    here = software_versions()
    assert same_software(here)
    assert same_software({**here, "brainage": "0.0.1"})
    assert not same_software({**here, "SimpleITK": "2.0"})
    assert not same_software(None)
