"""A training small enough for tests of the loop; also a program, so that tests can start it in processes.

``python toy_training.py OUT '{"devices": 2}' [STEP]`` trains in OUT with those settings changed, writes
``weights.pt``, and where STEP is given kills itself after that many micro-batches.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from brainage.config import TrainRecipe
from brainage.nn import RoutingRecord, VisionTransformer
from brainage.train.batches import epoch_batches, steps_per_epoch
from brainage.train.devices import start_fabric
from brainage.train.fit import fit
from brainage.train.task import StepResult, Task

TOKENS, FEATURES, ITEMS = 5, 6, 26

RECIPE = TrainRecipe(
    epochs=3,
    batch_size=8,
    lr=3e-3,
    ema=0.5,
    precision="32-true",
    accelerator="cpu",
    workers=0,
    checkpoint_every=1,
)


class ToyModel(nn.Module):
    """A number out of a few tokens, through a dense block and a mixture of experts."""

    def __init__(self, drop_path: float) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, 8)
        moe = {"num_experts": 3, "rank": 2, "top_k": 2}
        self.encoder = VisionTransformer(TOKENS, 8, 2, 2, 12, (1,), moe, drop_path=drop_path)
        self.head = nn.Linear(8, 1)

    def forward(self, x_BNF: Tensor) -> tuple[Tensor, list[RoutingRecord]]:
        hidden_BND, routing = self.encoder(self.embed(x_BNF), return_routing=True)
        return self.head(hidden_BND.mean(1))[:, 0], routing


class ToyTask(Task):
    """Regression on tokens whose mean tells the target."""

    def __init__(self, recipe: TrainRecipe, drop_path: float = 0.0, kill_after: int | None = None) -> None:
        torch.manual_seed(recipe.seed)
        self.model = ToyModel(drop_path)
        self.x_INF = torch.randn(ITEMS, TOKENS, FEATURES)
        self.y_I = self.x_INF.mean((1, 2)) * 3
        self.recipe, self.steps_per_epoch = recipe, steps_per_epoch(ITEMS, recipe)
        self.calls, self.kill_after = 0, kill_after
        self.seen: list[list[int]] = []

    def start(self, fabric: Fabric) -> None:
        self.model.head.bias.data.fill_(float(self.y_I.mean()))

    def batches(self, fabric: Fabric, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in epoch_batches(ITEMS, self.recipe, epoch, fabric):
            self.seen.append(chosen)
            yield fabric.to_device(self.x_INF[chosen]), fabric.to_device(self.y_I[chosen])

    def loss(self, model: nn.Module, batch: Any) -> StepResult:
        if self.calls == self.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls += 1
        x_BNF, y_B = batch
        predicted_B, routing = model(x_BNF)
        gap_B = predicted_B - y_B
        return StepResult(gap_B.square().mean(), {"gap": gap_B.abs().mean()}, routing)

    def validate(self, model: nn.Module, fabric: Fabric) -> dict[str, float]:
        predicted_I, _ = model(fabric.to_device(self.x_INF))
        return {"validation_gap": float((predicted_I.cpu() - self.y_I).abs().mean())}

    def probe(self, model: nn.Module, fabric: Fabric) -> list[RoutingRecord]:
        return model(fabric.to_device(self.x_INF[:4]))[1]


def main() -> None:
    out = Path(sys.argv[1])
    settings = json.loads(sys.argv[2])
    drop_path = settings.pop("drop_path", 0.0)
    recipe = TrainRecipe.model_validate(RECIPE.model_dump() | settings)
    fabric = start_fabric(recipe)
    task = ToyTask(recipe, drop_path, int(sys.argv[3]) if len(sys.argv) > 3 else None)
    model = fit(task, recipe, out, fabric=fabric)
    if fabric.is_global_zero:
        torch.save(model.state_dict(), out / "weights.pt")


if __name__ == "__main__":
    main()
