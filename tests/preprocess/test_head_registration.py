"""More starts are followed where the first lead to no likely brain."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from brainage.preprocess import head_registration
from brainage.preprocess.head_registration import HeadAlignment, align_head, load_head_template


def alignment(ncc: float, scales: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> HeadAlignment:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(np.diag(scales).ravel().tolist())
    image = load_head_template().head
    return HeadAlignment(affine, sitk.Transform(), image, image, ncc)


GOOD = alignment(0.9)
HALF_THE_SIZE = alignment(0.75, (0.7, 0.7, 0.7))
FLAT = alignment(0.75, (1.3, 1.0, 0.7))
UNLIKE = alignment(0.6)
DARK_FOR_BRIGHT = alignment(-0.8)


@pytest.mark.parametrize(
    ("first", "second", "given"),
    [
        (GOOD, None, GOOD),
        (HALF_THE_SIZE, GOOD, GOOD),
        (FLAT, GOOD, GOOD),
        (UNLIKE, GOOD, GOOD),
        # A child, or a T2: no other start helps, and what was found first is what is told of.
        (HALF_THE_SIZE, UNLIKE, HALF_THE_SIZE),
        (DARK_FOR_BRIGHT, UNLIKE, DARK_FOR_BRIGHT),
    ],
)
def test_the_next_starts_are_followed_only_where_the_first_find_no_likely_brain(
    first, second, given, monkeypatch
):
    found, followed = [first, second], []

    def align(starts, *_):
        followed.append(starts)
        return found[len(followed) - 1]

    monkeypatch.setattr(head_registration, "_align_from", align)
    template = load_head_template()
    assert align_head(template.head, template) is given
    assert [len(starts) for starts in followed] == ([3] if second is None else [3, 15])
    poses = [start.GetParameters() for starts in followed for start in starts]
    assert len(set(poses)) == len(poses)
