"""Permutation of tokens into one contiguous slice per expert, and back.

Every chosen (token, slot) pair is computed: there is no capacity and no token is dropped. Rows are moved by
gathers in both directions (the gradient of a gather is the gather of the inverse permutation), so forward and
backward are deterministic and need no atomic additions. Symbols beside those of the package: T = B N tokens,
S chosen pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class DispatchPlan:
    """Where each chosen (token, slot) pair goes when the pairs are sorted by expert.

    Attributes:
        pair_S: index ``token * K + slot`` of every pair, in sorted order.
        row_S: index ``token * E + expert`` of every pair, in sorted order.
        position_TK: place of a pair in the sorted order, S for a slot that is not used.
        sizes_E: pairs of each expert; they sum to S.
    """

    pair_S: Tensor
    row_S: Tensor
    position_TK: Tensor
    sizes_E: tuple[int, ...]


def plan_dispatch(experts_TK: Tensor, used_TK: Tensor, num_experts: int) -> DispatchPlan:
    """Sort the used (token, slot) pairs by expert, in token order within an expert (stable)."""
    slots = experts_TK.shape[1]
    experts = experts_TK.masked_fill(~used_TK, num_experts).flatten()
    sizes = torch.bincount(experts, minlength=num_experts)[:num_experts].tolist()
    order = experts.argsort(stable=True)
    total = sum(sizes)
    pair_S = order[:total]
    position = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return DispatchPlan(
        pair_S=pair_S,
        row_S=pair_S // slots * num_experts + experts[pair_S],
        position_TK=position.clamp(max=total).view_as(experts_TK),
        sizes_E=tuple(sizes),
    )


class _GatherRows(torch.autograd.Function):
    """``source[index]``, with the gradient gathered through the inverse index instead of scattered.

    ``inverse_MC`` lists, for each of the M source rows, the output rows made from it; an entry equal to the
    number of output rows stands for none.
    """

    @staticmethod
    def forward(ctx: Any, source_MD: Tensor, index: Tensor, inverse_MC: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_MC)
        return source_MD.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inverse_MC,) = ctx.saved_tensors
        padded = _with_zero_row(gradients[0])
        columns = [padded.index_select(0, column) for column in inverse_MC.unbind(1)]
        return sum(columns[1:], start=columns[0]), None, None


def _with_zero_row(rows: Tensor) -> Tensor:
    return torch.cat((rows, rows.new_zeros(1, rows.shape[1])))


def gather_tokens(tokens_TD: Tensor, plan: DispatchPlan) -> Tensor:
    """Rows of the tokens in sorted order, (S, D)."""
    slots = plan.position_TK.shape[1]
    return _GatherRows.apply(tokens_TD, plan.pair_S // slots, plan.position_TK)


def gather_projections(projections_TER: Tensor, plan: DispatchPlan) -> Tensor:
    """For each pair in sorted order, the token's projection on that expert's basis, (S, R)."""
    tokens, experts, _ = projections_TER.shape
    total = len(plan.row_S)
    inverse = plan.row_S.new_full((tokens * experts,), total)
    inverse[plan.row_S] = torch.arange(total, device=inverse.device)
    return _GatherRows.apply(projections_TER.flatten(0, 1), plan.row_S, inverse[:, None])


def combine(slices: list[Tensor], gates_TK: Tensor, plan: DispatchPlan) -> Tensor:
    """Weighted sum over each token's experts, (T, D), from the experts' outputs on their slices.

    Args:
        slices: outputs (n_e, D) of all experts in order, n_e as in ``plan.sizes_E``.
        gates_TK: weights of the slots. A slot that is not used adds exactly 0, whatever other rows hold.
        plan: the plan by which the slices were made.
    """
    tokens, slots = gates_TK.shape
    outputs = torch.cat((*slices, slices[0].new_zeros(1, slices[0].shape[1])))
    inverse = torch.cat((plan.pair_S, plan.pair_S.new_tensor([tokens * slots])))
    rows = _GatherRows.apply(outputs, plan.position_TK.flatten(), inverse[:, None])
    return (rows.view(tokens, slots, -1) * gates_TK.unsqueeze(-1)).sum(dim=1)
