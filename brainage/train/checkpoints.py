"""What an interrupted training needs to go on."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from brainage.errors import CheckpointError
from brainage.files import replacing

VERSION = 2
_EXPECTED = "the state of this training"
_REMEDY = "train into another folder, or delete the file"


def training_state(model: nn.Module, averaged: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Whole weights and moments on the CPU, by name; sharded ones gathered, for the first process only."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return {
        "model": get_model_state_dict(model, options=options),
        "averaged": get_model_state_dict(averaged, options=options),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=options),
    }


def save_training_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and numbers, whole or not at all."""
    with replacing(path) as partial:
        torch.save({"version": VERSION, **state}, partial)


def read_training_state(path: Path) -> dict[str, Any]:
    """The content of a file that :func:`save_training_state` wrote. Runs no code from it.

    Raises:
        CheckpointError: the file is damaged, or of another version of brainage.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(path, "a damaged file", _EXPECTED, _REMEDY) from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise CheckpointError(path, "the state of another version of brainage", _EXPECTED, _REMEDY)
    return state


def load_training_state(
    path: Path, state: dict[str, Any], model: nn.Module, averaged: nn.Module, optimizer: Optimizer
) -> None:
    """Put what :func:`training_state` gathered into modules and an optimiser, sharded or not.

    Raises:
        CheckpointError: naming ``path``, where the state belongs to another model.
    """
    options = StateDictOptions(full_state_dict=True)
    try:
        set_model_state_dict(model, state["model"], options=options)
        set_model_state_dict(averaged, state["averaged"], options=options)
        set_optimizer_state_dict(model, optimizer, state["optimizer"], options=options)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(path, "the state of another model", _EXPECTED, _REMEDY) from error
