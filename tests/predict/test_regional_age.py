"""Regional ages in the tables of a scan: only where they mean something, and never for another atlas."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainage.anatomy.grid import MODEL_GRID
from brainage.models.regional_age import BINS, RegionalAges
from brainage.models.weights import TrainedModel
from brainage.predict.map_truth import HEALTHY, REGIONAL, measure_person, truth_content
from brainage.predict.predictor import predict_scan
from brainage.predict.regional_age import regional_ages, regional_references
from brainage.predict.regions import prediction_facts, region_table
from brainage.predict.simulated_aging import AgedPerson, aging_names
from brainage.train.layout import atlas_of

COLUMNS = ["regional_age", "regional_error", "regional_low", "regional_high", "regional_percentile"]


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 1.4, MODEL_GRID.shape).astype(np.float32)


@pytest.fixture(scope="module")
def model(tiny_model: TrainedModel) -> TrainedModel:
    """Regions that all look 60 and err by about 8 years; the first one guesses."""
    rng = np.random.default_rng(0)
    ages, regions = np.linspace(-150, 250, 100), len(tiny_model.region_names)
    looks = ages[:, None] + rng.normal(0, 8, (100, regions))
    looks[:, 0] = rng.uniform(20, 90, 100)
    regional = RegionalAges(np.zeros((regions, BINS)), np.full(regions, 60.0), ages, looks)
    return dataclasses.replace(tiny_model, regional=regional)


def table_of(
    model: TrainedModel, volume: np.ndarray, affine: np.ndarray | None = None
) -> tuple[pd.DataFrame, dict]:
    prediction = predict_scan(model, volume)
    affine = MODEL_GRID.affine if affine is None else affine
    table = region_table(model, prediction, np.eye(4), MODEL_GRID.shape, affine)
    return table, prediction_facts(model, prediction, table)


def test_the_table_says_how_old_each_region_looks(model: TrainedModel, volume: np.ndarray) -> None:
    table, facts = table_of(model, volume)
    known = table.iloc[1:-1]
    assert (known["regional_age"] == 60).all()
    np.testing.assert_allclose(known["regional_error"], 8, rtol=0.25)
    assert (known["regional_low"] < known["regional_high"]).all()
    # Healthy people of an age look that age here, so the percentile follows from age and error.
    age = facts["predicted_age"]
    assert ((known["regional_percentile"] > 50) == (age < 60)).all() or abs(age - 60) < 4
    own = [row["by_itself"] for row in facts["regions"]]
    assert own[1]["age"] == 60.0
    assert own[1]["healthy"]["subjects"] == 100
    json.dumps(facts, allow_nan=False)


def test_guessing_regions_and_what_is_no_region_have_no_age(model: TrainedModel, volume: np.ndarray) -> None:
    table, facts = table_of(model, volume)
    assert table.iloc[[0, -1]][COLUMNS].isna().all(axis=None)
    assert facts["regions"][0]["by_itself"] is None
    assert facts["regions"][-1]["by_itself"] is None


def test_a_region_that_the_scan_cuts_off_has_no_age(model: TrainedModel, volume: np.ndarray) -> None:
    affine = MODEL_GRID.affine.copy()
    affine[2, 3] += 70  # the scan begins 70 mm higher
    table, _ = table_of(model, volume, affine)
    cut = table.iloc[1:-1]
    assert (cut["coverage"] < 0.5).any()
    assert (cut["regional_age"].isna() == (cut["coverage"] < 0.98)).all()


def test_a_model_without_them_has_no_such_columns(tiny_model: TrainedModel, volume: np.ndarray) -> None:
    table, facts = table_of(tiny_model, volume)
    assert not set(COLUMNS) & set(table)
    assert all(row["by_itself"] is None for row in facts["regions"])
    assert regional_references(tiny_model) is None


def test_ages_of_another_atlas_than_the_models_are_not_given(model: TrainedModel, volume: np.ndarray) -> None:
    assert regional_ages(model, volume) is not None
    moved = dataclasses.replace(model, region_share_NR=model.region_share_NR.roll(1, 0))
    renamed = dataclasses.replace(model, region_names=tuple(f"{name}!" for name in model.region_names))
    atlas = model.recipe.atlas.model_copy(update={"path": Path("gone.nii.gz")})
    gone = dataclasses.replace(model, recipe=model.recipe.model_copy(update={"atlas": atlas}))
    for other in (moved, renamed, gone):
        assert atlas_of(other) is None
        assert regional_ages(other, volume) is None
        assert not set(COLUMNS) & set(table_of(other, volume)[0])


def test_faithfulness_reads_them_beside_the_maps(
    model: TrainedModel, volume: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainage.predict.map_truth.attribute", lambda gates: {})
    # The first region guesses, so that not every region has an age: not compared.
    person = AgedPerson(volume, volume, aging_names()[:3])
    assert REGIONAL not in measure_person(model, person).aged
    looks = model.regional.looks_CR.copy()
    looks[:, 0] = model.regional.ages_C
    whole = dataclasses.replace(model, regional=dataclasses.replace(model.regional, looks_CR=looks))
    rows = truth_content_of(whole, person, monkeypatch)
    assert {row["against"] for row in rows} >= {"as it is", HEALTHY, "same person before"}


def truth_content_of(
    model: TrainedModel, person: AgedPerson, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, object]]:
    monkeypatch.setattr(
        "brainage.predict.map_truth.attribute",
        lambda gates: {"contribution": Fixed(gates.contributions())},
    )
    content = truth_content(model, [person] * 3)
    return [row for row in content["methods"] if row["method"] == REGIONAL]


@dataclasses.dataclass
class Fixed:
    years_R: np.ndarray
