"""The training loop of every track."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from lightning.fabric.wrappers import _FabricOptimizer
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from brainage.config import TrainRecipe
from brainage.errors import CheckpointError, ConfigError
from brainage.nn import RoutingRecord
from brainage.train.batches import epoch_seed
from brainage.train.checkpoints import (
    load_training_state,
    read_training_state,
    save_training_state,
    training_state,
)
from brainage.train.devices import determinism, shard, start_fabric
from brainage.train.log import Row, RunLog, logger
from brainage.train.parameter_groups import parameter_groups
from brainage.train.routing import mean_routing, save_snapshot
from brainage.train.schedule import warmup_cosine
from brainage.train.task import Task

Progress = Callable[[Sequence[int], str], Iterable[int]]


def quiet(epochs: Sequence[int], title: str) -> Iterable[int]:
    """The :data:`Progress` that shows nothing."""
    return epochs


def fit(
    task: Task, recipe: TrainRecipe, out: Path, progress: Progress = quiet, fabric: Fabric | None = None
) -> nn.Module:
    """Train, and return the model with exponentially averaged weights, as a plain module.

    The run can be killed at any time: called again with the same arguments it goes on after the last
    checkpoint in ``out``, drawing the same batches as an uninterrupted run.

    Args:
        task: with a freshly made model.
        recipe: of the optimisation.
        out: folder, on a disk that all processes share, for ``log.csv``, TensorBoard events,
            ``training_state.pt`` and the routing snapshots.
        progress: shows how far the epochs are.
        fabric: of :func:`~brainage.train.devices.start_fabric`, needed where a process fits more than once;
            by default a new one.

    Raises:
        CheckpointError: ``out`` holds a training state that does not fit the model or is damaged.
        ConfigError: the devices are not there, or the learning rate made the gradients infinite.
    """
    out.mkdir(parents=True, exist_ok=True)
    with determinism(recipe.deterministic):
        run = _Run(task, recipe, out, fabric or start_fabric(recipe))
        run.train(progress)
        return run.finished()


class _Sealed:
    """A value that Fabric passes on as it is; of bare tensors it would round even the inputs to bf16."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Step(nn.Module):
    """What the devices' strategy wraps: the forward pass together with the loss."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model, self.task = task.model, task

    def forward(self, batch: _Sealed) -> tuple[Tensor, _Sealed]:
        """The loss to differentiate, and the figures and routing of the micro-batch."""
        result = self.task.loss(self.model, batch.value)
        figures = {"loss": result.loss, **result.figures}
        detached = {name: value.detach() for name, value in figures.items()}
        return result.loss, _Sealed((detached, [record.detach() for record in result.routing]))


class _Run:
    """One training: its parts, where it stands, and how it gets on."""

    def __init__(self, task: Task, recipe: TrainRecipe, out: Path, fabric: Fabric) -> None:
        self.task, self.recipe, self.out, self.fabric = task, recipe, out, fabric
        self.state_path = out / "training_state.pt"
        self.epoch, self.step = 0, 0
        self.figures: dict[str, list[Tensor]] = {}
        self.rng: Tensor | None = None
        resumes = fabric.broadcast(self.state_path.exists())
        state = read_training_state(self.state_path) if resumes else None

        task.model.to(fabric.device)
        if state is None:
            task.start(fabric)
            if fabric.world_size > 1:
                for tensor in task.model.state_dict().values():
                    torch.distributed.broadcast(tensor, 0)
        # Sharding would leave shares of the weights only.
        self.whole = copy.deepcopy(task.model) if recipe.strategy == "fsdp" else None
        self.averaged = AveragedModel(task.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
        self.inner = _Step(task)
        self.module = fabric.setup_module(self.inner)
        if recipe.strategy == "fsdp":
            # Only the sharding strategy, an untyped attribute of Fabric, has a mesh.
            shard(self.averaged.module, cast(Any, fabric.strategy).device_mesh)
        groups = parameter_groups(task.model, recipe)
        self.adamw = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98))
        self.optimizer = cast(_FabricOptimizer, fabric.setup_optimizers(self.adamw))
        self.factor = warmup_cosine(task.steps_per_epoch * recipe.epochs, recipe.warmup)
        self.schedule = LambdaLR(self.adamw, self.factor)
        if state is not None:
            self._resume(state)

    def train(self, progress: Progress) -> None:
        """All epochs that are left."""
        log = RunLog(self.out, self.epoch, self.recipe.epochs) if self.fabric.is_global_zero else None
        epochs = range(self.epoch, self.recipe.epochs)
        for epoch in progress(epochs, f"Training {self.out.name}") if log else epochs:
            start = time.perf_counter()
            # That of the epoch's first step, also when it is resumed within.
            factor = self.factor(epoch * self.task.steps_per_epoch)
            row: Row = {"epoch": epoch + 1, "lr": self.recipe.lr * factor}
            row |= self._train_epoch()
            due = self.epoch == self.recipe.epochs or self.epoch % self.recipe.checkpoint_every == 0
            if due:
                row |= self._look()
            row["seconds"] = time.perf_counter() - start
            if log:
                log.add(row)
            if due:
                self._save()
        if log:
            log.close()

    def finished(self) -> nn.Module:
        """The averaged model, whole and finished by its task."""
        model = self.averaged.module
        if self.whole is not None:
            options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, cpu_offload=True)
            weights = self.fabric.broadcast(get_model_state_dict(model, options=options))
            self.whole.load_state_dict(weights)
            model = self.whole
        with torch.no_grad():
            self.task.finish(model, self.fabric)
        return model

    def _train_epoch(self) -> Row:
        task, recipe, fabric = self.task, self.recipe, self.fabric
        self.inner.train()
        torch.manual_seed(epoch_seed(recipe, self.epoch, fabric.global_rank))
        batches = _exactly(task.steps_per_epoch * recipe.accumulate, task.batches(fabric, self.epoch))
        for _ in range(self.step * recipe.accumulate):
            next(batches)
        if self.rng is not None:
            _set_rng(self.rng, fabric)
            self.rng = None
        records: list[RoutingRecord] = []
        while self.step < task.steps_per_epoch:
            for micro in range(recipe.accumulate):
                batch = next(batches)
                with fabric.no_backward_sync(self.module, enabled=micro + 1 < recipe.accumulate):
                    loss, sealed = self.module(_Sealed(batch))
                    fabric.backward(loss / recipe.accumulate)
                figures, records = sealed.value
                for name, value in figures.items():
                    self.figures.setdefault(name, []).append(value)
            norm = fabric.clip_gradients(
                self.module, self.optimizer, max_norm=recipe.clip_norm, error_if_nonfinite=False
            )
            _check_gradients(cast(Tensor, norm), recipe, self.epoch)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.schedule.step()
            self.averaged.update_parameters(task.model)
            self.step += 1
            every = recipe.checkpoint_steps
            if every and self.step % every == 0 and self.step < task.steps_per_epoch:
                self._save()
        row = {name: self._mean(torch.stack(values).mean()) for name, values in self.figures.items()}
        self.epoch, self.step, self.figures = self.epoch + 1, 0, {}
        return row | mean_routing(records, fabric)

    def _mean(self, value: Tensor) -> float:
        return float(cast(Tensor, self.fabric.all_reduce(value, reduce_op="mean")))

    @torch.no_grad()
    def _look(self) -> Row:
        """Validate the averaged model, and save how it routes the probe set."""
        model = self.averaged.module
        model.eval()
        with self.fabric.autocast():
            row = self.task.validate(model, self.fabric)
            records = self.task.probe(model, self.fabric)
        if records and self.fabric.is_global_zero:
            save_snapshot(self.out, self.epoch, records)
        return row

    def _save(self) -> None:
        state = training_state(self.inner, self.averaged.module, self.adamw)
        rng = cast(Tensor, self.fabric.all_gather(_get_rng(self.fabric)))
        if self.fabric.is_global_zero:
            figures = {name: torch.stack(values).cpu() for name, values in self.figures.items()}
            position = {"epoch": self.epoch, "step": self.step, "figures": figures, "rng": rng.cpu()}
            counts = {"updates": int(self.averaged.n_averaged), "schedule": self.schedule.state_dict()}
            save_training_state(self.state_path, {**state, **position, **counts})
        self.fabric.barrier()

    def _resume(self, state: dict[str, Any]) -> None:
        load_training_state(self.state_path, state, self.inner, self.averaged.module, self.adamw)
        try:
            self.averaged.n_averaged.fill_(state["updates"])
            self.schedule.load_state_dict(state["schedule"])
            self.epoch, self.step = int(state["epoch"]), int(state["step"])
            figures, rng = state["figures"], state["rng"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                self.state_path, "an incomplete state", "the state of this training", "delete the file"
            ) from error
        device = self.fabric.device
        self.figures = {name: list(values.to(device).unbind()) for name, values in figures.items()}
        if self.step:
            self.rng = rng
        where = f"epoch {self.epoch} of {self.recipe.epochs}"
        logger.info(
            "Resuming %s after %s%s", self.out.name, where, f", step {self.step}" if self.step else ""
        )


def _exactly(count: int, batches: Iterator[Any]) -> Iterator[Any]:
    yield from itertools.islice(batches, count)
    raise RuntimeError("the task gave fewer batches than steps_per_epoch * accumulate")


def _get_rng(fabric: Fabric) -> Tensor:
    """The state of the generators that a model draws from, (bytes,) uint8 on the device."""
    states = [torch.get_rng_state()]
    if fabric.device.type == "cuda":
        states.append(torch.cuda.get_rng_state(fabric.device))
    return torch.cat(states).to(fabric.device)


def _set_rng(states: Tensor, fabric: Fabric) -> None:
    """Restore this process's part of gathered states; with other devices than then, go on with fresh ones."""
    mine = _get_rng(fabric)
    states = states.reshape(-1, states.shape[-1])
    if states.shape != (fabric.world_size, len(mine)):
        logger.warning("Resumed on other devices than before: stochastic depth draws other numbers from here")
        return
    state = states[fabric.global_rank]
    length = len(torch.get_rng_state())
    torch.set_rng_state(state[:length])
    if fabric.device.type == "cuda":
        torch.cuda.set_rng_state(state[length:], fabric.device)


def _check_gradients(norm: Tensor, recipe: TrainRecipe, epoch: int) -> None:
    whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
    if not torch.isfinite(whole):
        rule = (
            f"made the gradients {float(whole)} in epoch {epoch + 1}; give a smaller one, or check the data"
        )
        raise ConfigError("lr", recipe.lr, rule)
