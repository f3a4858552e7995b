"""Recall against brute force and by hand, with unequal numbers of captions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainage.errors import ConfigError
from brainage.evaluate import retrieval
from brainage.evaluate.retrieval import Standing, recall_table, standings


def vectors(rng, count, dim=6):
    rows = rng.normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute_force(image, caption, owner, k):
    """Sort everything, look at the first k."""
    similarity = image @ caption.T
    by_image = [
        any(owner[c] == i for c in np.argsort(-similarity[i], kind="stable")[:k]) for i in range(len(image))
    ]
    by_caption = [owner[c] in np.argsort(-similarity[:, c], kind="stable")[:k] for c in range(len(caption))]
    return np.mean(by_image), np.mean(by_caption)


@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(1, 7), min_size=2, max_size=14))
def test_equals_brute_force_on_unequal_caption_counts(seed, counts):
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    image, caption = vectors(rng, len(counts)), vectors(rng, len(owner))
    table = recall_table(image, caption, owner)
    for k in (1, 5, 10):
        expected = brute_force(image, caption, owner, k)
        assert (table[f"image_to_text_r{k}"], table[f"text_to_image_r{k}"]) == pytest.approx(expected)


def test_by_hand():
    """Two images along x and y; the first has captions at 10 and 80 degrees, the second at 70."""
    angles = np.radians([10, 80, 70])
    image = np.eye(2)
    caption = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    table = recall_table(image, caption, [0, 0, 1])
    # x: own at 10 is nearest. y: foreign at 80 is nearest, own at 70 second.
    assert table["image_to_text_r1"] == 0.5
    assert table["image_to_text_median_rank"] == 1.5
    # 10 and 70 find their image first, 80 finds the other one.
    assert table["text_to_image_r1"] == pytest.approx(2 / 3)
    assert (table["images"], table["captions"], table["blocks"]) == (2, 3, 1)


def test_ties_are_the_mean_over_all_orders():
    """5 tied candidates of which 2 are own, 1 better one before them."""
    standing = Standing(np.array([1]), np.array([5]), np.array([2]))
    ranks = [1 + 1 + min(order.index(0), order.index(1)) for order in itertools.permutations(range(5))]
    assert standing.rank()[0] == pytest.approx(np.mean(ranks))
    for k in range(1, 8):
        assert standing.hits(k).mean() == pytest.approx(np.mean([rank <= k for rank in ranks]))


def test_captions_that_read_the_same_share_their_luck():
    """All vectors equal: each caption finds its image at 1 of 4, each image one of its captions likewise."""
    image, caption = np.ones((4, 1)), np.ones((8, 1))
    table = recall_table(image, caption, np.repeat(np.arange(4), 2))
    assert table["text_to_image_r1"] == pytest.approx(1 / 4)
    assert table["image_to_text_r1"] == pytest.approx(2 / 8)
    assert table["text_to_image_median_rank"] == 2.5


def test_blocks_are_averaged_and_the_rest_left_out(monkeypatch):
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(7), [1, 2, 3, 1, 2, 3, 9])
    image, caption = vectors(rng, 7), vectors(rng, len(owner))
    table = recall_table(image, caption, owner, block=3)
    first = recall_table(image[:3], caption[:6], owner[:6])
    second = recall_table(image[3:6], caption[6:12], owner[6:12] - 3)
    assert table["blocks"] == 2
    assert (table["images"], table["captions"]) == (6, 12)
    for name in ("image_to_text_r1", "text_to_image_median_rank"):
        assert table[name] == pytest.approx((first[name] + second[name]) / 2)
    monkeypatch.setattr(retrieval, "_CHUNK", 2)
    assert recall_table(image, caption, owner, block=3) == table


def test_wrong_input():
    image, caption = np.eye(2), np.eye(2)
    with pytest.raises(ConfigError, match="owner_C"):
        standings(image, caption, [0])
    with pytest.raises(ConfigError, match="must name all of 2 images"):
        standings(image, caption, [0, 0])
    with pytest.raises(ConfigError, match="block"):
        recall_table(image, caption, [0, 1], block=3)
