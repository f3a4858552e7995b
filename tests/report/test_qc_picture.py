import io

import numpy as np
import pytest
from PIL import Image

from brainage.anatomy.grid import MODEL_GRID
from brainage.report.qc_picture import (
    BRAIN,
    MASK,
    SCAN_SLICES,
    _resized,
    _template,
    png_of,
    qc_picture,
    thumbnail,
)


@pytest.fixture(scope="module")
def volume():
    brain, ventricles = _template()
    noise = np.random.default_rng(0).normal(0, 0.05, brain.shape)
    return (np.where(ventricles, 0.1, 0.8) * brain + noise * brain).astype(np.float32)


@pytest.fixture(scope="module")
def scan(volume):
    """The same brain with twice the voxels along z, so that scales show."""
    return np.repeat(volume, 2, axis=2) * 400, MODEL_GRID.affine @ np.diag([1, 1, 0.5, 1])


def colours(picture):
    return {colour for _, colour in picture.getcolors(picture.width * picture.height)}


def test_what_is_drawn(scan, volume):
    mask = scan[0] > 40
    picture = qc_picture(title="sub-01", status="ok", reasons="", scan=scan, mask=mask, volume=volume)
    assert {MASK, BRAIN} <= colours(picture)
    png = png_of(picture)
    assert len(png) < 200_000
    assert Image.open(io.BytesIO(png)).size == picture.size


def test_a_refused_scan_and_one_that_is_not_at_hand(scan, volume):
    refused = qc_picture(title="sub-01", status="failed", reasons="no brain " * 80, scan=scan)
    assert MASK not in colours(refused)
    aligned = qc_picture(title="sub-01", status="ok", reasons="", volume=volume)
    assert BRAIN in colours(aligned)
    nothing = qc_picture(title="sub-01", status="failed", reasons="truncated")
    assert nothing.height < aligned.height


def test_an_empty_mask_counts_as_none_and_an_empty_scan_is_black():
    none = np.zeros((20, 30, 25), bool)
    blank = none.astype(np.float32), np.diag([2.0, 2, 2, 1])
    grey = np.linspace(0, 100, none.size, dtype=np.float32).reshape(none.shape), blank[1]

    def drawn(scan, mask=None):
        return np.asarray(qc_picture(title="", status="failed", reasons="", scan=scan, mask=mask))

    np.testing.assert_array_equal(drawn(blank, none), drawn(blank))
    # The same page but for the voxels; of the 7 slices all show them, and a scan without any shows no grey.
    tiles = (drawn(grey) != drawn(blank)).any(axis=(0, 2))
    assert np.count_nonzero(np.diff(np.concatenate([[0], tiles, [0]])) == 1) == len(SCAN_SLICES)
    middle = drawn(blank)[100:180, np.flatnonzero(tiles)]
    assert middle.max() == 0


def test_right_is_on_the_left_and_up_is_up():
    flat = np.zeros((40, 20), np.float32)
    flat[30:, 15:] = 1  # to the right of the subject, and up
    picture = _resized(flat, (40, 20))
    assert picture.shape == (20, 40)
    assert picture[:5, :10].mean() > 0.9
    assert picture[10:, 20:].max() == 0


def test_thumbnails_are_small(scan, volume):
    for data in (thumbnail(None, volume), thumbnail(scan, None)):
        assert len(data) < 8000
        assert Image.open(io.BytesIO(data)).size == (216, 80)
    assert thumbnail(None, None) is None
