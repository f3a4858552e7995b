import math

import numpy as np
import pytest
from scipy import ndimage

from brainage.preprocess.quality_metrics import (
    Distribution,
    artefacts,
    cjv,
    cnr,
    distribution,
    efc,
    fber,
    fwhm,
    gsr,
    inu,
    qi_1,
    snr,
    snr_dietrich,
    wm2max,
)

WHITE, GREY = Distribution(100, 6, 5, 1001), Distribution(70, 8, 7, 500)


def test_distribution_of_seven_values():
    # Median 4; distances 3 2 1 0 1 2 96, of which the median is 2.
    found = distribution(np.array([1.0, 2, 3, 4, 5, 6, 100]))
    assert found.median == 4
    assert found.mad == pytest.approx(2 * 1.4826)
    assert found.voxels == 7


def test_ratios_worked_by_hand():
    assert snr(WHITE) == pytest.approx(100 / (6 * math.sqrt(1001 / 1000)))
    assert snr(Distribution(5, 0, 0, 10)) == math.inf
    assert cjv(WHITE, GREY) == pytest.approx((5 + 7) / 30)
    assert cnr(WHITE, GREY, Distribution(0, 0, 1, 9)) == pytest.approx(30 / 10)
    assert wm2max(np.full((2, 2, 2), 160.0), WHITE) == pytest.approx(0.625)
    assert fber(np.array([3.0, 10, 20]), np.array([1.0, 2, 9])) == pytest.approx(25)


def test_signal_over_the_noise_of_air_finds_the_noise_of_the_scanner():
    # In air the magnitude of complex Gaussian noise of deviation 5 is Rayleigh distributed.
    noise = np.hypot(*np.random.default_rng(0).normal(0, 5, (2, 200_000)))
    assert snr_dietrich(WHITE, distribution(noise)) == pytest.approx(100 / 5, rel=0.05)


def test_entropy_focus_is_0_for_one_voxel_and_1_for_equal_ones():
    one = np.zeros((4, 4, 4))
    assert efc(np.full((4, 4, 4), 7.0)) == pytest.approx(1)
    one[0, 0, 0], one[1, 1, 1] = 1e6, 1e-6
    assert efc(one) == pytest.approx(0, abs=1e-6)
    assert efc(np.zeros((4, 4, 4))) == 0


def test_a_ghost_raises_the_entropy_and_is_found_in_the_air():
    rng = np.random.default_rng(0)
    image = np.abs(rng.normal(0, 2, (60, 40, 40)))
    image[25:35, 10:30, 10:30] += 500
    ghosted = image + 0.15 * np.roll(image, 20, axis=0)
    assert efc(ghosted) > efc(image) + 0.02
    head = image > 250
    distance = ndimage.distance_transform_edt(~head)
    air = distance > 2
    found = artefacts(ghosted, air, distance)
    assert qi_1(air, found) == pytest.approx(10 * 20 * 20 / air.sum(), rel=0.1)
    assert not found[head].any()
    assert qi_1(air, artefacts(image, air, distance)) == 0


def test_no_air_no_artefacts():
    nothing = np.zeros((5, 5, 5), bool)
    assert qi_1(nothing, artefacts(np.ones((5, 5, 5)), nothing, np.ones((5, 5, 5)))) == 0


def test_a_ghost_is_told_from_noise_and_from_single_bright_voxels():
    ghost, background = np.full(100, 30.0), np.full(60, 10.0)
    ghost[:5] = 900  # 5 %, such as a holder
    assert gsr(ghost, background, 400) == pytest.approx(20 / 400)
    assert gsr(ghost[5:], ghost[5:], 400) == 0


def test_non_uniformity_of_a_ramp():
    assert inu(np.linspace(0.5, 1.5, 10_001)) == pytest.approx((0.9, 1.0))


@pytest.mark.parametrize("sigma", [1.0, 1.7])
def test_width_of_smoothed_noise(sigma):
    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(90, 90, 90)), (sigma, 2 * sigma, 1))
    widths = fwhm(image, np.ones(image.shape, bool))
    assert widths == pytest.approx(np.array([sigma, 2 * sigma, 1]) * 2.355, rel=0.06)


def test_width_of_what_has_none():
    flat = np.ones((5, 5, 5))
    assert fwhm(flat, flat > 0) == (0, 0, 0)
    checkers = np.indices((6, 6, 6)).sum(axis=0) % 2 * 1.0
    assert fwhm(checkers, checkers >= 0) == (0, 0, 0)
