"""An adapted model predicts what the fit said it would, and learns what there is to learn from few."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from brainage.anatomy.grid import MODEL_GRID
from brainage.data.datasets import AgedScan
from brainage.errors import ConfigError
from brainage.models.weights import TrainedModel, load_trained, save_trained
from brainage.predict.predictor import interval_half_width, predict_scan
from brainage.train.brain_age import predict_ages
from brainage.train.cohort import Cohort
from brainage.train.finetune import Features, adapt, clearly_lower, cross_validated, features, fit_change
from brainage.train.finetune_run import finetune


@pytest.fixture(scope="module")
def scans(tiny_model: TrainedModel) -> list[AgedScan]:
    """Volumes whose brightness differs, of people whom the model takes to be nine years too young."""
    rng = np.random.default_rng(0)
    volumes = [
        torch.from_numpy(rng.uniform(0.2, 0.6 + 0.02 * i, MODEL_GRID.shape).astype(np.float32)).half()[None]
        for i in range(24)
    ]
    blank = [AgedScan(f"sub-{i:02d}", "", 0.0, volume) for i, volume in enumerate(volumes)]
    predicted = predict_ages(tiny_model.model, blank, 8).numpy()
    return [
        dataclasses.replace(scan, age=float(years + 9 + rng.normal(0, 1)))
        for scan, years in zip(blank, predicted, strict=True)
    ]


@pytest.mark.parametrize("method", ["line", "head"])
def test_the_adapted_model_predicts_what_was_fitted(
    tiny_model: TrainedModel, scans: list[AgedScan], method: str
) -> None:
    known = features(tiny_model.model, scans)
    before = predict_ages(tiny_model.model, scans, 8).numpy()
    np.testing.assert_allclose(known.predicted_N, before, atol=1e-3)
    change = fit_change(method, known)
    found = adapt(tiny_model.model, scans, method)
    expected = change.apply(known.predicted_N, known.tokens_NF)
    np.testing.assert_allclose(predict_ages(found.model, scans, 8).numpy(), expected, atol=0.01)
    # The model given is left as it was.
    np.testing.assert_array_equal(predict_ages(tiny_model.model, scans, 8).numpy(), before)


def test_a_line_mends_what_all_share(tiny_model: TrainedModel, scans: list[AgedScan]) -> None:
    found = adapt(tiny_model.model, scans)
    assert found.error["line"] < 0.3 * found.error["none"]
    assert found.method == "line"


def of_predictions(predicted: list[float] | np.ndarray, age: list[float] | np.ndarray) -> Features:
    """Scans of which nothing is known but what was predicted."""
    names = tuple(f"sub-{i:03d}" for i in range(len(age)))
    return Features(np.zeros((len(age), 3)), np.array(predicted), np.array(age), names, np.zeros(3))


def test_a_line_through_few_changes_little() -> None:
    # Two people of one predicted age, both ten years older: the most probable shift is the sum of gaps over
    # the number of people and the one whose error a shift of 6 y is worth, 8^2 / 6^2. No slope is seen.
    change = fit_change("line", of_predictions([40.0, 40.0], [50.0, 50.0]))
    assert change.slope == pytest.approx(1.0)
    assert change.intercept == pytest.approx(20 / (2 + 64 / 36))
    # One young and one old person, true to a slope of 2 about 50: only part of it is believed.
    change = fit_change("line", of_predictions([45.0, 55.0], [40.0, 60.0]))
    assert change.slope == pytest.approx(1 + 50 / (50 + 8**2 / 0.2**2))
    assert change.slope * 50 + change.intercept == pytest.approx(50)


def test_a_line_through_many_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.uniform(20, 80, 400)
    age = 0.6 * predicted + 25 + rng.normal(0, 6, 400)
    change = fit_change("line", of_predictions(predicted, age))
    slope, intercept = np.polyfit(predicted, age, 1)
    assert change.slope == pytest.approx(slope, abs=0.01)
    assert change.intercept == pytest.approx(intercept, abs=0.5)


def known_features(rng: np.random.Generator, count: int, wide: int = 200) -> tuple[Features, np.ndarray]:
    """A model that misses what one direction of its tokens says about age."""
    age = rng.uniform(20, 80, count)
    tokens = rng.normal(0, 1, (count, wide))
    tokens[:, 0] = (age - 50) / 17 + rng.normal(0, 0.1, count)
    predicted = 50 + 0.5 * (age - 50) + rng.normal(0, 12, count)
    names = tuple(f"sub-{i:03d}" for i in range(count))
    tokens *= np.where(np.arange(wide) == 0, 8.0, 1.0)
    return Features(tokens - tokens.mean(0), predicted, age, names, tokens.mean(0)), tokens


def test_the_head_learns_what_the_line_cannot() -> None:
    known, _ = known_features(np.random.default_rng(1), 80)
    line, head = (np.abs(cross_validated(name, known) - known.age_N).mean() for name in ("line", "head"))
    assert head < 0.65 * line


def test_the_head_hardly_moves_where_tokens_say_nothing() -> None:
    rng = np.random.default_rng(2)
    known, tokens = known_features(rng, 60)
    noise = dataclasses.replace(known, tokens_NF=rng.normal(0, 1, tokens.shape))
    line, head = (np.abs(cross_validated(name, noise) - noise.age_N).mean() for name in ("line", "head"))
    assert head < 1.15 * line


def test_the_head_is_taken_where_it_is_clearly_better() -> None:
    rng = np.random.default_rng(3)
    base = rng.gamma(2, 3, 50)
    assert clearly_lower(base - 2 + rng.normal(0, 1, 50), base)
    assert not clearly_lower(base - rng.uniform(-0.11, 0.1, 50), base)
    assert not clearly_lower(base, base - 2)


def test_too_few_subjects_are_refused(tiny_model: TrainedModel, scans: list[AgedScan]) -> None:
    with pytest.raises(ConfigError, match="at least 20"):
        adapt(tiny_model.model, scans[:6], "head")
    with pytest.raises(ConfigError, match="must be auto"):
        adapt(tiny_model.model, scans, "everything")


def test_the_file_carries_the_new_cohorts_calibration(
    tiny_model: TrainedModel, scans: list[AgedScan], tmp_path
) -> None:
    facts = {**tiny_model.facts, "fingerprint": "old", "unusual_limit": 0.01, "name": "tiny"}
    trained = dataclasses.replace(tiny_model, facts=facts)
    result = finetune(trained, Cohort(tuple(scans), "hash", "mine"))
    save_trained(tmp_path / "model.safetensors", result.trained)
    again = load_trained(tmp_path / "model.safetensors")
    assert again.facts["finetuned"]["from"] == "old"
    assert again.facts["fingerprint"] != "old"
    assert again.facts["unusual_limit"] > 0.01
    assert again.facts["unusual_part_limit"] > again.facts["unusual_limit"]
    assert again.facts["age_range"] == [min(s.age for s in scans), max(s.age for s in scans)]
    assert interval_half_width(again, 50.0) is not None
    prediction = predict_scan(again, scans[0].volume[0].float().numpy())
    assert abs(prediction.age - scans[0].age) < 8
    assert prediction.baseline + prediction.contributions_N.sum() == pytest.approx(prediction.age, abs=1e-3)
