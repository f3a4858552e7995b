"""Simulated volumes look as the chain's own."""

from __future__ import annotations

import numpy as np

from brainage.anatomy.grid import MODEL_GRID
from brainage.preprocess.simulated import simulated_volumes
from brainage.preprocess.template import template_tissues


def test_a_simulated_volume_lies_on_the_template_and_is_normalised() -> None:
    (volume,) = simulated_volumes([40.0])
    inside, grey, white = template_tissues()
    assert volume.shape == MODEL_GRID.shape
    assert volume.dtype == np.float32
    assert not volume[~inside].any()
    assert (volume[inside] > 0).mean() > 0.8
    # The medians of the template's sure tissue, whose landmarks are 1 and 0.5.
    assert abs(np.median(volume[white > 0.9]) - 1.0) < 0.2
    assert abs(np.median(volume[grey > 0.8]) - 0.5) < 0.2
