import io

import numpy as np
import pytest
from PIL import Image

from brainage.anatomy.grid import MODEL_GRID
from brainage.report.qc_picture import BRAIN, MASK, _resized, _template, png_of, qc_picture, thumbnail


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


def test_an_empty_mask_and_an_empty_scan_are_drawn():
    blank = np.zeros((20, 30, 25), np.float32), np.diag([2.0, 2, 2, 1])
    qc_picture(title="", status="failed", reasons="", scan=blank, mask=np.zeros((20, 30, 25), bool))


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
