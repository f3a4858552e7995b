"""No subject is predicted by a model that saw it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from brainage.anatomy.grid import MODEL_GRID
from brainage.config import BrainAgeRecipe
from brainage.data.datasets import AgedScan
from brainage.train import cross_validate as module
from brainage.train.brain_age import BrainAgeTask
from brainage.train.cross_validate import MEAN, MODEL, RIDGE, cross_validate

# Of three tokens, the first lies in one region, the others in another.
DIVISION = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])


@pytest.fixture
def scans() -> list[AgedScan]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(9):
        # Subjects 0 and 1 have two sessions.
        subject, age = f"sub-{max(0, number - 2)}", 20.0 + 5 * max(0, number - 2)
        volume = torch.rand(1, *MODEL_GRID.shape, generator=generator).half() * (1 - age / 200)
        made.append(AgedScan(subject, f"ses-{number}", age, volume))
    return made


def test_folds_hold_subjects_apart(
    scans: list[AgedScan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[str], set[str]]] = []

    def fake_fit(task: BrainAgeTask, *_: object) -> None:
        seen.append(tuple({scan.participant_id for scan in part} for part in (task.scans, task.validation)))

    monkeypatch.setattr(module, "new_model", lambda *_: None)
    monkeypatch.setattr(module, "fit", fake_fit)
    monkeypatch.setattr(
        module,
        "predict_tokens",
        lambda _, held, __: (
            torch.tensor([scan.age + 1 for scan in held]),
            torch.tensor([[scan.age, 2.0, 4.0] for scan in held]),
        ),
    )
    recipe = BrainAgeRecipe.model_validate({"train": {"folds": 3}})
    table, regions = cross_validate(scans, recipe, None, DIVISION, tmp_path)
    assert regions.tolist() == [[scan.age, 6.0] for scan in scans]
    assert all(not train & held for train, held in seen)
    assert len(seen) == 3
    assert table["session_id"].tolist() == [scan.session_id for scan in scans]
    assert table[MODEL].tolist() == pytest.approx([scan.age + 1 for scan in scans])
    for fold, rows in table.groupby("fold"):
        others = table.loc[table["fold"] != fold, "age"]
        assert rows[MEAN].tolist() == pytest.approx([others.mean()] * len(rows))
    assert table[RIDGE].notna().all()


def test_finished_folds_are_not_repeated(
    scans: list[AgedScan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = BrainAgeRecipe.model_validate({"train": {"folds": 3}})
    folds = module.age_stratified_folds([s.participant_id for s in scans], [s.age for s in scans], 3, 0)
    for fold in range(3):
        (tmp_path / f"fold-{fold}").mkdir()
        ages = [33.0] * int((folds == fold).sum())
        kept = {"ages": ages, "regions": [[1.0, 2.0]] * len(ages)}
        (tmp_path / f"fold-{fold}" / "predictions.json").write_text(json.dumps(kept))
    monkeypatch.setattr(module, "fit", lambda *_: pytest.fail("trained again"))
    table, regions = cross_validate(scans, recipe, None, DIVISION, tmp_path)
    assert (table[MODEL] == 33.0).all()
    assert regions.tolist() == [[1.0, 2.0]] * len(scans)
