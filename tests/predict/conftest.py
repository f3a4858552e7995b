"""An untrained model of the real layout, which gives ages that mean nothing."""

from __future__ import annotations

import pytest
import torch

from brainage.config import BrainAgeRecipe
from brainage.models.brain_age import BrainAgeModel
from brainage.models.weights import TrainedModel
from brainage.preprocess.chain import fingerprint
from brainage.train.layout import lay_out

RECIPE = BrainAgeRecipe.model_validate(
    {
        "name": "untrained",
        "model": {
            "dim": 32,
            "depth": 1,
            "num_heads": 2,
            "hidden_dim": 16,
            "moe_blocks": [0],
            "rank": 2,
            "free_experts": 1,
        },
    }
)


@pytest.fixture(scope="session")
def tiny_model() -> TrainedModel:
    layout, regions = lay_out(RECIPE)
    torch.manual_seed(0)
    model = BrainAgeModel(RECIPE.model, layout, 50.0, 20.0).eval()
    torch.nn.init.normal_(model.head.weight_ND)
    features = (len(layout.index_N), 80)
    return TrainedModel(
        model=model,
        recipe=RECIPE,
        region_names=regions.names,
        region_groups=regions.groups,
        region_hemispheres=regions.hemispheres,
        region_share_NR=regions.share_NR,
        residuals_C=torch.linspace(-10, 10, 41),
        typical_mean_NF=torch.full(features, 0.1),
        typical_std_NF=torch.full(features, 0.1),
        facts={
            "name": "untrained",
            "fingerprint": "0" * 16,
            "preprocessing_fingerprint": fingerprint(RECIPE.preprocess),
            "age_range": [18.0, 96.0],
            "unusual_limit": 1e9,
        },
    )
