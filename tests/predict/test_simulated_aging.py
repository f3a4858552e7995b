"""People with known aging, and whether finding it is measured right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from brainage.anatomy.grid import MODEL_GRID
from brainage.data.aging import RATES, REFERENCE_AGE, sulci_of
from brainage.data.simulated_scan import simulate_scan
from brainage.errors import InputError
from brainage.models.weights import TrainedModel
from brainage.predict import map_truth, simulated_aging
from brainage.predict.map_truth import AS_IT_IS, BEFORE, PersonMaps, truth_content
from brainage.predict.region_gates import Attribution
from brainage.predict.simulated_aging import AGED, YOUNG, aging_names, rates_of, simulated_people


def test_one_side_ages_without_the_other() -> None:
    truth = simulate_scan(REFERENCE_AGE + 10, "F", 0, 0, rates_of(("lateral ventricle L",))).truth
    truth = truth.set_index("region")
    wanted = RATES["lateral ventricle"]
    assert truth.loc["lateral ventricle L", "set_change"] == pytest.approx(wanted * (AGED - REFERENCE_AGE))
    assert truth.loc["lateral ventricle R", "set_change"] == pytest.approx(wanted * (YOUNG - REFERENCE_AGE))
    grown = truth["true_ml"] / truth["template_ml"]
    assert grown["lateral ventricle L"] > 1.3 * grown["lateral ventricle R"]
    assert truth.loc["brainstem", "set_change"] == 0


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """Rates that were simulated; the volumes are empty."""
    asked: list[dict[str, float]] = []
    monkeypatch.setattr(
        simulated_aging, "simulate_scan", lambda age, sex, index, seed, rates: asked.append(rates)
    )
    monkeypatch.setattr(
        simulated_aging, "volume_of", lambda scan: np.full(MODEL_GRID.shape, len(asked), np.float32)
    )
    return asked


def test_volumes_are_made_once(tmp_path: Path, made: list[dict[str, float]]) -> None:
    people = list(simulated_people(tmp_path, 3, 1))
    aged = len(aging_names()) // 2
    assert [len(person.aged_regions) for person in people] == [aged] * 3
    assert len({person.aged_regions for person in people}) == 3
    assert [len(person.restored) for person in people] == [aged, 0, 0]
    assert len(made) == 3 * 2 + aged
    again = list(simulated_people(tmp_path, 3, 1))
    assert len(made) == 3 * 2 + aged
    np.testing.assert_array_equal(again[2].aged, people[2].aged)


def test_restoring_makes_one_region_young(tmp_path: Path, made: list[dict[str, float]]) -> None:
    (person,) = simulated_people(tmp_path, 1, 1)
    _, aged, *restored = made
    for name, rates in zip(person.aged_regions, restored, strict=True):
        assert {region for region in rates if rates[region] != aged[region]} == {
            name,
            sulci_of(name),
        }


def test_another_seed_in_the_same_folder_is_refused(tmp_path: Path, made: list[dict[str, float]]) -> None:
    list(simulated_people(tmp_path, 1, 0))
    with pytest.raises(InputError, match="another simulation"):
        list(simulated_people(tmp_path, 1, 0, seed=1))
    assert json.loads((tmp_path / "simulation.json").read_text())["Seed"] == 0


def test_a_perfect_and_a_blind_map(
    tmp_path: Path, made: list[dict[str, float]], tiny_model: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One method gives each aged region its true effect, the other the same to all."""
    names = aging_names()
    effects = np.linspace(0.1, 2, len(names))

    def measured(trained: TrainedModel, person: simulated_aging.AgedPerson) -> PersonMaps:
        aged = np.isin(names, person.aged_regions)
        offset = np.linspace(5, 0, len(names))  # what everybody has
        own = np.where(aged, effects, 0)
        return PersonMaps(
            aged, 40.0, 60.0,
            young={"contribution": offset, "blind": offset},
            aged={"contribution": offset + own, "blind": offset},
            effect_R=np.where(aged, effects, np.nan), own_R=np.where(aged, 0.5 * effects, np.nan),
        )  # fmt: skip

    monkeypatch.setattr(map_truth, "measure_person", measured)
    content = truth_content(tiny_model, simulated_people(tmp_path, 5, 0))
    rows = {(row["method"], row["against"]): row for row in content["methods"]}
    assert rows["contribution", BEFORE]["auc"] == 1
    assert rows["contribution", BEFORE]["rank_correlation"] == 1
    assert rows["contribution", AS_IT_IS]["auc"] < 0.8  # what everybody has hides it
    assert rows["blind", BEFORE]["auc"] == 0.5
    assert content["own_share_of_effect"] == 0.5
    assert {row["auc_before"] for row in content["regions"]} <= {1, None}


def test_a_person_is_measured_with_the_gates_of_every_scan(
    tmp_path: Path, made: list[dict[str, float]], tiny_model: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = len(tiny_model.region_names) + 1
    monkeypatch.setattr(
        map_truth, "attribute", lambda gates: {"contribution": Attribution(gates.contributions(), 0.1)}
    )
    (person,) = simulated_people(tmp_path, 1, 1)
    maps = map_truth.measure_person(tiny_model, person)
    known = np.isfinite(maps.effect_R)
    assert known.tolist() == maps.aged_R.tolist()
    assert len(maps.aged["contribution"]) == len(aging_names()) < rows
