"""A region by itself: its histogram by hand, blind to all other regions, and honest about guessing."""

from __future__ import annotations

import numpy as np
import pytest

from brainage.models.regional_age import BINS, CEILING, RegionalAges, level_features, region_levels

LABELS = np.repeat([0, 4, 2, 4], 16).reshape(4, 4, 4)
INDICES = np.array([2, 4, 9])  # 9 has no voxel


def test_the_histogram_of_a_region_by_hand() -> None:
    step = CEILING / (BINS - 1)
    volume = np.where(LABELS == 2, 1.5 * step, 0.0)
    volume[1] = 2 * step  # half of region 4; the other half is 0
    shares = level_features(region_levels(volume, LABELS, INDICES)) ** 2
    expected = np.zeros((3, BINS))
    expected[0, [1, 2]] = 0.5  # halfway between two bins
    expected[1, [0, 2]] = 0.5
    np.testing.assert_allclose(shares, expected, atol=0.012)  # levels are 0.005 apart, bins 0.139


def test_a_region_sees_no_other() -> None:
    rng = np.random.default_rng(0)
    volume = rng.uniform(0, 1.4, LABELS.shape)
    model = RegionalAges(rng.normal(0, 9, (3, BINS)), np.full(3, 50.0), np.zeros(0), np.zeros((0, 3)))
    before = model(volume, LABELS, INDICES)
    changed = np.where(LABELS == 4, volume / 2, volume)
    after = model(changed, LABELS, INDICES)
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert before[2] == 50.0


@pytest.mark.parametrize(("grey", "white"), [(0.04, 0.0), (-0.03, 0.0), (0.0, 0.05), (0.02, -0.04)])
def test_wrong_landmarks_are_what_normalisation_would_have_made_of_them(grey: float, white: float) -> None:
    volume = np.random.default_rng(1).uniform(0, 1.3, LABELS.shape)
    levels = region_levels(volume, LABELS, INDICES)
    landmarks, meant = [0, 0.5 - grey, 1 - white, 1.5 - white], [0, 0.5, 1, 1.5]
    seen = region_levels(np.interp(volume, landmarks, meant), LABELS, INDICES)
    np.testing.assert_allclose(
        level_features(levels, grey, white) ** 2, level_features(seen) ** 2, atol=0.012
    )


def test_a_region_that_guesses_is_not_informative() -> None:
    rng = np.random.default_rng(2)
    ages = rng.uniform(20, 90, 200)
    looks = np.column_stack(
        [
            ages + rng.normal(0, 10, 200),
            np.full(200, 55.0),
            55 + rng.normal(0, 6, 200),
        ]
    )
    model = RegionalAges(np.zeros((3, BINS)), np.zeros(3), ages, looks)
    assert model.informative_R.tolist() == [True, False, False]
    assert model.error_R[0] == pytest.approx(10, rel=0.15)
