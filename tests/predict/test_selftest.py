"""The installation's self-test, and with it the shipped model from raw scan to age."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brainage.cli.predict import SHIPPED
from brainage.cli.selftest import RECORDED
from brainage.errors import CheckpointError
from brainage.models.weights import TrainedModel, load_trained
from brainage.predict import selftest
from brainage.resources import resource


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return load_trained(resource(SHIPPED))


def test_this_installation_predicts_what_is_stored_with_the_model(trained: TrainedModel) -> None:
    checks = selftest.check(trained, resource(RECORDED))
    assert [check.simulated_age for check in checks] == list(selftest.SIMULATED_AGES)
    assert all(check.passed for check in checks), checks
    assert checks[0].found < checks[1].found


def test_a_difference_is_found(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = json.loads(resource(RECORDED).read_text("utf-8"))
    found = list(stored["PredictedAges"])
    found[1] += 0.06
    monkeypatch.setattr(selftest, "simulated_predictions", lambda _: found)
    assert [check.passed for check in selftest.check(trained, resource(RECORDED))] == [True, False]


def test_predictions_of_another_model_are_refused(trained: TrainedModel, tmp_path: Path) -> None:
    other = tmp_path / "selftest.json"
    other.write_text(json.dumps(json.loads(resource(RECORDED).read_text("utf-8")) | {"Model": "0" * 16}))
    with pytest.raises(CheckpointError, match="predictions of model 0000"):
        selftest.check(trained, other)
