"""The package's page: its examples run, and its table names every router and setting."""

from __future__ import annotations

import inspect
import re

import brainage.nn
from brainage.nn.registry import ROUTERS


def test_every_example_runs(repository):
    page = (repository / "docs" / "nn.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) >= 5
    exec("\n".join(blocks), {})  # the page's own code, in one namespace


def test_the_table_names_routers_and_settings_that_exist(repository):
    page = (repository / "docs" / "nn.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", page, flags=re.MULTILINE))
    assert set(rows) == set(ROUTERS)
    for router, settings in rows.items():
        assert set(re.findall(r"`(\w+)`", settings)) <= set(inspect.signature(ROUTERS[router]).parameters)


def test_the_public_names_exist():
    assert all(hasattr(brainage.nn, name) for name in brainage.nn.__all__)
