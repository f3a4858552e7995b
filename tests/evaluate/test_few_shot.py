"""Few-shot probes on features whose classes are known."""

from __future__ import annotations

import numpy as np
import pytest

from brainage.errors import ConfigError
from brainage.evaluate.few_shot import few_shot


def blobs(count, seed, spread):
    rng = np.random.default_rng(seed)
    centres = 3 * np.eye(4, 6)
    label = np.arange(count) % 4
    return centres[label] + spread * rng.normal(size=(count, 6)), label


def test_separate_classes_need_one_image():
    rows = few_shot(*blobs(40, 0, 0.1), *blobs(80, 1, 0.1))
    assert [row["shots"] for row in rows] == [1, 5, 10]
    assert all(row["top1"] > 0.99 for row in rows)


def test_more_shots_are_better_and_draws_repeat():
    data = (*blobs(200, 0, 2), *blobs(400, 1, 2))
    rows = few_shot(*data, shots=(1, 20))
    assert rows == few_shot(*data, shots=(1, 20))
    assert 0.25 < rows[0]["top1"] < rows[1]["top1"]
    assert rows[0]["std"] > 0


def test_too_few_images():
    with pytest.raises(ConfigError, match="must not exceed 3"):
        few_shot(*blobs(12, 0, 1), *blobs(12, 1, 1), shots=(4,))
