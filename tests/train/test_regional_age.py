"""Fitting the regions' own ages: they find the region that is old, and no subject judges itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from brainage.anatomy.atlas import Atlas, built_in
from brainage.data.datasets import AgedScan
from brainage.models.regional_age import RegionalAges
from brainage.train.regional_age import fit_regional_ages

NOISE, OLD = "brainstem", "thalamus L"


def scan(atlas: Atlas, number: int, age: float, region_ages: dict[str, float]) -> AgedScan:
    """A scan whose regions lose grey matter to fluid with their own ages; one region knows no age."""
    rng = np.random.default_rng(number)
    volume = np.zeros(atlas.labels.shape, np.float32)
    for index, name in zip(atlas.regions["index"], atlas.regions["name"], strict=True):
        inside = atlas.labels == index
        years = rng.uniform(20, 90) if name == NOISE else region_ages.get(name, age) + rng.normal(0, 4)
        fluid = rng.uniform(0, 1, inside.sum()) < years / 200
        volume[inside] = np.where(fluid, 0.1, rng.normal(0.6, 0.15, inside.sum()))
    return AgedScan(f"sub-{number}", "", age, torch.from_numpy(volume).half()[None])


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    whole = built_in()
    rows = whole.regions[whole.regions["name"].isin([NOISE, OLD, "thalamus R"])]
    return dataclasses.replace(whole, regions=rows.reset_index(drop=True))


@pytest.fixture(scope="module")
def scans(atlas: Atlas) -> list[AgedScan]:
    ages = np.random.default_rng(0).uniform(20, 90, 60)
    return [scan(atlas, number, age, {}) for number, age in enumerate(ages)]


@pytest.fixture(scope="module")
def fitted(atlas: Atlas, scans: list[AgedScan]) -> RegionalAges:
    return fit_regional_ages(scans, np.arange(60) % 5, atlas)


def test_the_region_that_is_old_looks_old(fitted: RegionalAges, atlas: Atlas) -> None:
    one = scan(atlas, 100, 30.0, {OLD: 80.0})
    looks = fitted(one.volume[0].numpy(), atlas.labels, atlas.regions["index"].to_numpy())
    by_name = dict(zip(atlas.regions["name"], looks, strict=True))
    assert by_name[OLD] == pytest.approx(80, abs=15)
    assert by_name["thalamus R"] == pytest.approx(30, abs=15)
    informative = dict(zip(atlas.regions["name"], fitted.informative_R, strict=True))
    assert informative == {OLD: True, "thalamus R": True, NOISE: False}


def test_a_mirrored_scan_gets_mirrored_ages(fitted: RegionalAges, atlas: Atlas) -> None:
    one = scan(atlas, 101, 50.0, {OLD: 75.0}).volume[0].numpy()
    indices = atlas.regions["index"].to_numpy()
    left, right = (atlas.regions["name"].tolist().index(name) for name in (OLD, "thalamus R"))
    there, back = (fitted(volume, atlas.labels, indices) for volume in (one, one[::-1]))
    # Both sides learn from the same pairs of scan and mirror image.
    assert back[right] == pytest.approx(there[left], abs=1e-6)
    assert back[left] == pytest.approx(there[right], abs=1e-6)


def test_nobodys_age_enters_what_is_said_of_them(
    fitted: RegionalAges, atlas: Atlas, scans: list[AgedScan]
) -> None:
    folds = np.arange(60) % 5
    other = [dataclasses.replace(one, age=90.0) if folds[k] == 2 else one for k, one in enumerate(scans)]
    again = fit_regional_ages(other, folds, atlas)
    np.testing.assert_allclose(again.looks_CR[folds == 2], fitted.looks_CR[folds == 2])
    assert not np.allclose(again.looks_CR[folds == 1], fitted.looks_CR[folds == 1])


def test_a_little_off_the_grey_landmark_hardly_matters(fitted: RegionalAges, atlas: Atlas) -> None:
    one = scan(atlas, 102, 50.0, {}).volume[0].float().numpy()
    moved = np.interp(one, [0, 0.48, 1, 1.5], [0, 0.5, 1, 1.5])
    indices = atlas.regions["index"].to_numpy()
    there, back = (fitted(volume, atlas.labels, indices) for volume in (one, moved))
    np.testing.assert_allclose(back[fitted.informative_R], there[fitted.informative_R], atol=4)
