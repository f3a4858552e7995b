"""What is computed from parameters alone, kept in evaluation until one of them changes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class Kept(Generic[T]):
    """The last result of a computation on parameters. Copies and pickles of it are empty."""

    def __init__(self) -> None:
        self._found: tuple[Hashable, T] | None = None

    def get(self, sources: Iterable[Tensor], compute: Callable[[], T], *settings: Hashable) -> T:
        """``compute()``, or what it gave before where neither ``sources`` nor ``settings`` have changed.

        A change that autograd does not count (through ``.data``) is not seen; call :meth:`forget` then.
        Inference tensors count no changes at all, so of them nothing is kept.
        """
        sources = tuple(sources)
        if any(tensor.is_inference() for tensor in sources):
            return compute()
        key = settings, tuple((tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in sources)
        if self._found is None or self._found[0] != key:
            self._found = key, compute()
        return self._found[1]

    def forget(self) -> None:
        """Keep nothing, until the next :meth:`get`."""
        self._found = None

    def __deepcopy__(self, _: object) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


def in_inference(module: nn.Module) -> bool:
    """Whether a module computes for evaluation, without gradients: when things may be kept."""
    return not module.training and not torch.is_grad_enabled()
