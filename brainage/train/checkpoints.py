"""What an interrupted training needs to go on."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from brainage.errors import CheckpointError
from brainage.files import replacing


def save_training_state(path: Path, parts: Mapping[str, Any], epoch: int) -> None:
    """Write the ``state_dict`` of every part and the number of finished epochs, whole or not at all."""
    state = {name: part.state_dict() for name, part in parts.items()}
    with replacing(path) as partial:
        torch.save({"epoch": epoch, **state}, partial)


def load_training_state(path: Path, parts: Mapping[str, Any]) -> int:
    """Load every part in place; returns the number of finished epochs. Runs no code from the file.

    Raises:
        CheckpointError: the file is damaged or belongs to another model.
    """
    expected, remedy = "the state of this training", "train into another folder, or delete the file"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(path, "a damaged file", expected, remedy) from error
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return int(state["epoch"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(path, "the state of another model", expected, remedy) from error
