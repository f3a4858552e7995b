"""``brainage finetune``: what it tells beside the table."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from brainage.cli.finetune import CALIBRATED, advice
from brainage.evaluate.conformal import conformal_quantile
from brainage.predict.predictor import LEVEL
from brainage.train.finetune import Adaptation


def adapted(method: str, **error: float) -> Adaptation:
    return Adaptation(cast(Any, None), method, error, np.zeros(1), np.zeros(1))


@pytest.mark.parametrize(
    ("adaptation", "scans", "said"),
    [
        (adapted("line", none=7.0, line=5.0), 12, []),
        (adapted("line", none=0.7, line=0.8), 12, ["no gain over the model as it was"]),
        (adapted("head", none=7.0, line=6.0, head=5.0), 20, []),
        (adapted("line", none=7.0, line=5.0), 8, ["Fewer than 9 scans calibrate no interval"]),
        (adapted("line", none=0.7, line=0.8), 4, ["no gain", "Fewer than 9 scans"]),
    ],
)
def test_no_gain_and_no_interval_are_said(adaptation: Adaptation, scans: int, said: list[str]) -> None:
    found = advice(adaptation, scans)
    assert len(found) == len(said)
    assert all(part in sentence for part, sentence in zip(said, found, strict=True))


def test_the_number_is_that_of_the_intervals() -> None:
    assert conformal_quantile(np.arange(CALIBRATED), LEVEL) is not None
    assert conformal_quantile(np.arange(CALIBRATED - 1), LEVEL) is None
