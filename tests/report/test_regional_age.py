"""The table of regions by themselves: oldest beside the healthy first, and silent where it has to be."""

from __future__ import annotations

import numpy as np
import pytest

from brainage.errors import InputError
from brainage.predict.reference import fit_reference
from brainage.report.regional_age import regional_table

HEALTHY = fit_reference(np.linspace(20, 90, 200), np.linspace(20, 90, 200) + np.tile([-9, -3, 3, 9], 50))


def row(region: str, side: str, age: float | None, group: str = "limbic") -> dict:
    own = None if age is None else {"age": age, "error": 6.7, "healthy": HEALTHY.to_json()}
    return {"region": region, "hemisphere": side, "group": group, "by_itself": own}


def test_rows_are_read_against_healthy_people_of_the_age() -> None:
    regions = [row("insula L", "L", 51.0), row("brainstem", "bilateral", None), row("insula R", "R", 70.0)]
    table = regional_table({"regions": [*regions, row("outside the atlas", "bilateral", None, "")]}, 50.0)
    assert table is not None
    assert [(one.region, one.hemisphere) for one in table.rows] == [
        ("insula", "right"), ("insula", "left"), ("brainstem", ""),
    ]  # fmt: skip
    old, usual, silent = table.rows
    assert old.unusual
    assert old.percentile > 99
    assert not usual.unusual
    assert 40 < usual.percentile < 75
    assert silent.looks is None
    assert table.compared
    assert (table.low, table.high) == (40, 70)


def test_beyond_the_ages_of_the_cohort_only_the_age_is_given() -> None:
    table = regional_table({"regions": [row("insula L", "L", 80.0), row("insula R", "R", 91.0)]}, 97.0)
    assert table is not None
    assert not table.compared
    assert [one.looks for one in table.rows] == [91.0, 80.0]


def test_a_model_without_regional_ages_has_no_table() -> None:
    assert regional_table({"regions": [row("insula L", "L", None)]}, 50.0) is None
    assert regional_table({}, 50.0) is None


def test_a_damaged_file_is_one_sentence() -> None:
    damaged = row("insula L", "L", 50.0)
    damaged["by_itself"] = {"age": "old"}
    with pytest.raises(InputError, match=r"no usable regional age"):
        regional_table({"regions": [damaged]}, 50.0)
