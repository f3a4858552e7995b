"""Parameters by weight decay and, with layer decay, by learning rate."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from brainage.config import TrainRecipe
from brainage.nn import no_weight_decay_parameters


def parameter_groups(model: nn.Module, recipe: TrainRecipe) -> list[dict[str, Any]]:
    """Groups for AdamW.

    With ``layer_decay`` below 1 each block of a transformer learns by that factor slower than the one after
    it, and what comes before the first block slower still (as in ELECTRA, arXiv 2003.10555): weights
    near the input of a pretrained model should change least. Towers count their own blocks.
    """
    exempt = no_weight_decay_parameters(model)
    depths = _depths(model)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    if recipe.layer_decay == 1:
        # Also where one of them is empty, as in the states of earlier trainings.
        groups = {(1.0, decay): {"params": [], "weight_decay": decay} for decay in (recipe.weight_decay, 0.0)}
    for name, parameter in model.named_parameters():
        decay = 0.0 if name in exempt else recipe.weight_decay
        factor = recipe.layer_decay ** _blocks_after(name, depths)
        group = groups.setdefault(
            (factor, decay), {"params": [], "weight_decay": decay, "lr": recipe.lr * factor}
        )
        group["params"].append(parameter)
    return list(groups.values())


def _depths(model: nn.Module) -> dict[str, int]:
    """Number of blocks of each transformer, by the name of what holds it ("encoder." or "")."""
    depths: dict[str, int] = {}
    for name, _ in model.named_parameters():
        if match := re.match(r"(.*?)[^.]+\.blocks\.(\d+)\.", name):
            depths[match[1]] = max(depths.get(match[1], 0), int(match[2]) + 1)
    return depths


def _blocks_after(name: str, depths: dict[str, int]) -> int:
    for prefix, depth in depths.items():
        if name.startswith(prefix):
            if match := re.search(r"\.blocks\.(\d+)\.", name):
                return depth - int(match[1])
            first = any(part in name for part in ("embed", "position", "class_token"))
            return depth + 1 if first else 0
    return 0
