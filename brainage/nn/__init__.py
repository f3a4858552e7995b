"""Layers, on torch alone: the Eigen-Reparameterized Mixture of Experts (ERMoE), its published alternatives
behind the same interface, and the transformer around them.

Names of tensors end in their shape: B batch, N tokens, D width, E experts, R rank of a basis, K experts per
token, H hidden width of an expert.
"""

from brainage.nn.balancing import balancing_loss, importance_loss, load_loss
from brainage.nn.dense_layer import DenseLayer
from brainage.nn.moe import ERMoE
from brainage.nn.pretrained import LoadingError, dense_weights, load_dense_weights
from brainage.nn.registry import ROUTERS, MoELayer, make_moe
from brainage.nn.routing import RoutingRecord
from brainage.nn.routing_stats import (
    expert_load,
    load_statistics,
    routing_stability,
    routing_statistics,
    subspace_overlap,
)
from brainage.nn.soft_moe import SoftMoE
from brainage.nn.softmax_moe import SoftmaxMoE
from brainage.nn.stiefel import OrthonormalFrames, StiefelBasis
from brainage.nn.vit import VisionTransformer
from brainage.nn.weight_decay import no_weight_decay_parameters

__all__ = [
    "ROUTERS",
    "DenseLayer",
    "ERMoE",
    "LoadingError",
    "MoELayer",
    "OrthonormalFrames",
    "RoutingRecord",
    "SoftMoE",
    "SoftmaxMoE",
    "StiefelBasis",
    "VisionTransformer",
    "balancing_loss",
    "dense_weights",
    "expert_load",
    "importance_loss",
    "load_dense_weights",
    "load_loss",
    "load_statistics",
    "make_moe",
    "no_weight_decay_parameters",
    "routing_stability",
    "routing_statistics",
    "subspace_overlap",
]
