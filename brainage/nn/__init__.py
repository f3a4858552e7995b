"""Layers, on torch alone: the Eigen-Reparameterized Mixture of Experts (ERMoE) and the transformer around it.

Names of tensors end in their shape: B batch, N tokens, D width, E experts, R rank of a basis, K experts per
token, H hidden width of an expert.
"""

from brainage.nn.moe import ERMoE
from brainage.nn.routing import RoutingRecord
from brainage.nn.routing_stats import expert_load, routing_statistics, subspace_overlap
from brainage.nn.stiefel import StiefelBasis
from brainage.nn.vit import VisionTransformer
from brainage.nn.weight_decay import no_weight_decay_parameters

__all__ = [
    "ERMoE",
    "RoutingRecord",
    "StiefelBasis",
    "VisionTransformer",
    "expert_load",
    "no_weight_decay_parameters",
    "routing_statistics",
    "subspace_overlap",
]
