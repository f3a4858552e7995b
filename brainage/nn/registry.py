"""The feed-forward layers by the name that a recipe gives to their router."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, cast

from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.nn.dense_layer import DenseLayer
from brainage.nn.eigenbasis_router import EnergyRouter
from brainage.nn.moe import ERMoE
from brainage.nn.soft_moe import SoftMoE
from brainage.nn.softmax_moe import SoftmaxMoE
from brainage.nn.softmax_routing import CosineRouter, LinearRouter
from brainage.nn.stiefel import Orthogonalization


class MoELayer(Protocol):
    """What every layer of the registry is, beside an ``nn.Module``.

    ``forward`` takes normalised tokens (B, N, D), their contexts of the same shape, and a prior (N, E) or
    (B, N, E) of which 0 closes an expert to a token; it returns the transformed tokens, to be added to the
    residual, and on request a :class:`~brainage.nn.routing.RoutingRecord`. ``uses_context`` says whether the
    contexts are read.
    """

    uses_context: bool

    def __call__(
        self,
        x_BND: Tensor,
        context_BND: Tensor,
        prior_NE: Tensor | None = None,
        return_routing: bool = False,
    ) -> Any:
        """``y_BND``, or ``(y_BND, record)`` with ``return_routing=True``."""


def vmoe(
    dim: int,
    num_experts: int,
    hidden_dim: int,
    top_k: int = 2,
    noise_std: float = 1.0,
    normalize_gates: bool = False,
    capacity_factor: float | None = None,
) -> SoftmaxMoE:
    """V-MoE (Riquelme et al. 2021, arXiv 2106.05974): learned linear logits, softmax, noise, top-k.

    No token is dropped unless ``capacity_factor`` is given. Its losses are in :mod:`brainage.nn.balancing`.
    """
    return SoftmaxMoE(
        LinearRouter(dim, num_experts),
        dim,
        num_experts,
        hidden_dim,
        top_k,
        noise_std,
        normalize_gates,
        capacity_factor,
    )


def cosine(
    dim: int,
    num_experts: int,
    hidden_dim: int,
    top_k: int = 2,
    noise_std: float = 0.0,
    normalize_gates: bool = False,
    projection_dim: int | None = None,
    temperature: float = 0.3,
) -> SoftmaxMoE:
    """Learned cosine router with temperature, see :class:`~brainage.nn.softmax_routing.CosineRouter`."""
    router = CosineRouter(dim, num_experts, projection_dim, temperature)
    return SoftmaxMoE(router, dim, num_experts, hidden_dim, top_k, noise_std, normalize_gates)


def emoe(
    dim: int,
    num_experts: int,
    hidden_dim: int,
    rank: int,
    top_k: int = 2,
    normalize_gates: bool = False,
    temperature: float = 1.0,
    orthogonalization: Orthogonalization = "cayley",
) -> SoftmaxMoE:
    """EMoE, see :class:`~brainage.nn.eigenbasis_router.EnergyRouter`.

    Top-1 and top-2 by ``top_k``; ``top_k = num_experts`` is its soft mode.
    """
    router = EnergyRouter(dim, num_experts, rank, temperature, orthogonalization)
    return SoftmaxMoE(router, dim, num_experts, hidden_dim, top_k, 0.0, normalize_gates)


ROUTERS: dict[str, Callable[..., nn.Module]] = {
    "ermoe": ERMoE,
    "emoe": emoe,
    "vmoe": vmoe,
    "cosine": cosine,
    "soft": SoftMoE,
    "dense": DenseLayer,
}


def make_moe(router: str, dim: int, num_experts: int, hidden_dim: int, **settings: Any) -> MoELayer:
    """The layer of that router.

    Args:
        router: a name in ``ROUTERS``.
        dim: width D.
        num_experts: number of experts E.
        hidden_dim: hidden width H of one expert.
        settings: the other arguments of the layer, for instance ``top_k``.

    Raises:
        ConfigError: for an unknown router, a setting that it does not have or that it misses, and by the
            layer itself.
    """
    if router not in ROUTERS:
        raise ConfigError("router", router, f"must be one of {tuple(ROUTERS)}")
    build = ROUTERS[router]
    parameters = inspect.signature(build).parameters
    for name, value in settings.items():
        if name not in parameters:
            raise ConfigError(name, value, f"is no setting of the router {router!r}: {tuple(parameters)}")
    given = {"dim": dim, "num_experts": num_experts, "hidden_dim": hidden_dim, **settings}
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given:
            raise ConfigError(name, None, f"must be given for the router {router!r}")
    return cast(MoELayer, build(**given))
