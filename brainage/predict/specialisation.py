"""How much knowing the region of a token tells about its experts.

Mutual information of expert and region over all tokens of all scans, each token divided among its experts by
their shares and among its regions by their volumes. N tokens, E experts, R regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from brainage.anatomy.regions import divide_tokens
from brainage.data.datasets import AgedScan
from brainage.models.weights import TrainedModel

_SHUFFLES = 20
_BATCH = 8


def specialisation(trained: TrainedModel, scans: Sequence[AgedScan], seed: int = 0) -> dict[str, Any]:
    """Bits, ready for JSON.

    ``information`` is of the model as it is; ``without_prior`` of the same weights with every token free to
    use every expert; ``prior_alone`` of experts drawn evenly from those that a token may use; ``chance`` of
    tokens that changed places at random. ``experts`` is the entropy of the experts, which bounds all of them.
    """
    model = trained.model
    division_NR = divide_tokens(trained.region_share_NR.numpy())
    share_NE = _shares(trained, scans)
    rng = np.random.default_rng(seed)
    shuffled = [information(share_NE[rng.permutation(len(share_NE))], division_NR) for _ in range(_SHUFFLES)]
    load_E = share_NE.sum(0) / share_NE.sum()
    content: dict[str, Any] = {
        "prior": trained.recipe.model.prior,
        "information": round(information(share_NE, division_NR), 3),
        "chance": round(float(np.mean(shuffled)), 3),
        "experts": round(float(-(load_E[load_E > 0] * np.log2(load_E[load_E > 0])).sum()), 3),
        "without_prior": None,
        "prior_alone": None,
    }
    prior = model.prior()
    if prior is not None:
        allowed_NE = (prior > 0).double().numpy()
        even_NE = allowed_NE / np.maximum(allowed_NE.sum(1, keepdims=True), 1)
        content["prior_alone"] = round(information(even_NE, division_NR), 3)
        kept = model.recipe
        try:
            model.recipe = kept.model_copy(update={"prior": "none"})
            content["without_prior"] = round(information(_shares(trained, scans), division_NR), 3)
        finally:
            model.recipe = kept
    return content


def information(share_NE: np.ndarray, division_NR: np.ndarray) -> float:
    """Mutual information of expert and region, bits."""
    joint_ER = share_NE.T @ division_NR
    joint_ER = joint_ER / joint_ER.sum()
    apart_ER = joint_ER.sum(1, keepdims=True) * joint_ER.sum(0, keepdims=True)
    held = joint_ER > 0
    return float((joint_ER[held] * np.log2(joint_ER[held] / apart_ER[held])).sum())


@torch.no_grad()
def _shares(trained: TrainedModel, scans: Sequence[AgedScan]) -> np.ndarray:
    """Share (N, E) of each expert in each token, mean over scans and mixture blocks."""
    totals = []
    for start in range(0, len(scans), _BATCH):
        volumes = torch.stack([scan.volume.float() for scan in scans[start : start + _BATCH]])
        records = trained.model(volumes).routing
        totals.append(sum(record.gates_BNE.double().sum(0) for record in records) / len(records))
    return (torch.stack(totals).sum(0) / len(scans)).numpy()
