"""Tissue shares of regions, worked by hand, and the regressions on them."""

from __future__ import annotations

import numpy as np
import pytest

from brainage.models.region_regression import region_process, region_ridge, region_tissues


def test_tissue_shares_by_hand() -> None:
    labels = np.array([[[1, 1, 3, 3, 0]]])
    volume = np.array([[[0.0, 0.5, 0.75, 1.3, 0.4]]])
    # Region 3: a voxel half grey and half white, and one that is brighter than white. Region 1: fluid, grey.
    shares = region_tissues(volume, labels, np.array([3, 1]))
    assert shares.tolist() == pytest.approx([0, 0.25, 0.75, 0.5, 0.5, 0])


def test_a_region_without_voxels_has_no_tissue() -> None:
    shares = region_tissues(np.ones((1, 1, 2)), np.ones((1, 1, 2), int), np.array([1, 5]))
    assert shares.tolist() == [0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("make", [region_ridge, lambda: region_process(4)])
def test_they_find_a_line(make) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4))
    ages = 50 + 10 * features[:, 0] + rng.normal(scale=0.5, size=60)
    model = make().fit(features[:40], ages[:40])
    assert np.abs(model.predict(features[40:]) - ages[40:]).mean() < 2
