"""Few-shot linear probes of frozen features, as V-MoE reports them (arXiv 2106.05974, appendix)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeClassifier

from brainage.errors import ConfigError

SHOTS = (1, 5, 10)


def few_shot(
    train_ND: np.ndarray,
    label_N: np.ndarray,
    test_MD: np.ndarray,
    label_M: np.ndarray,
    shots: Sequence[int] = SHOTS,
    repeats: int = 5,
    penalty: float = 10.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Accuracy of a linear classifier that sees a few images of each class.

    Closed-form ridge regression of -1 and 1 on the features; every repeat draws other images.

    Args:
        train_ND, label_N: features and classes to draw from.
        test_MD, label_M: to measure on, all of them.
        shots: images of each class.
        repeats: draws.
        penalty: of the ridge, one for all numbers of shots; nothing is tuned on the test images.
        seed: of the draws.

    Returns:
        For each number of shots ``shots``, mean ``top1``, its standard deviation ``std`` over the draws, and
        ``repeats``.

    Raises:
        ConfigError: a class has fewer images than shots.
    """
    classes, counts = np.unique(label_N, return_counts=True)
    if max(shots) > counts.min():
        rule = f"must not exceed {counts.min()}, the images of the smallest class"
        raise ConfigError("shots", max(shots), rule)
    rows = []
    for count in shots:
        hits = []
        for repeat in range(repeats):
            draw = np.random.default_rng((seed, count, repeat))
            chosen = np.concatenate(
                [draw.choice(np.flatnonzero(label_N == c), count, replace=False) for c in classes]
            )
            # RidgeClassifier solves for targets of -1 and 1 in closed form.
            probe = RidgeClassifier(alpha=penalty).fit(train_ND[chosen], label_N[chosen])
            hits.append(float(probe.score(test_MD, label_M)))
        spread = float(np.std(hits, ddof=1)) if repeats > 1 else None
        rows.append({"shots": count, "top1": float(np.mean(hits)), "std": spread, "repeats": repeats})
    return rows
