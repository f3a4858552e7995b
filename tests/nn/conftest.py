"""Every test of the layers begins from the same random state."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """``ermoe_reference.py``: a layer, tokens, and the definition as a loop over tokens."""
    path = Path(__file__).with_name("ermoe_reference.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
