"""Permutation of tokens into one contiguous slice per expert, and back.

Every chosen (token, slot) pair is computed: there is no capacity and no token is dropped. Rows are moved by
gathers in both directions (the gradient of a gather is the gather of the inverse permutation), so forward and
backward are deterministic and need no atomic additions. Symbols beside those of the package: T = B N tokens,
S rows of all slices together, some of which may be padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from brainage.nn.routing import RoutingRecord


@dataclass(frozen=True, eq=False)
class DispatchPlan:
    """Where each chosen (token, slot) pair goes when the pairs are sorted by expert.

    Attributes:
        pair_S: index ``token * K + slot`` of the pair in each row, T K for a row of padding.
        cell_S: index ``token * E + expert`` of the pair in each row, T E for a row of padding.
        row_TK: the row of each pair, S for a slot that is not used.
        sizes_E: rows of each expert; they sum to S.
    """

    pair_S: Tensor
    cell_S: Tensor
    row_TK: Tensor
    sizes_E: tuple[int, ...]


@torch.compiler.disable(reason="the sizes of the slices are data, which no graph can hold")
def plan_dispatch(
    experts_TK: Tensor, used_TK: Tensor, num_experts: int, multiple_of: int = 1
) -> DispatchPlan:
    """Sort the used pairs by expert, in token order within an expert (a stable sort).

    Args:
        experts_TK: chosen experts, distinct within a token.
        used_TK: which slots are used.
        num_experts: number of experts E.
        multiple_of: every slice is padded with zero rows to a multiple of this size.
    """
    tokens, slots = experts_TK.shape
    experts = experts_TK.masked_fill(~used_TK, num_experts).flatten()
    counts = experts.new_zeros(num_experts + 1).scatter_add(0, experts, torch.ones_like(experts))
    counts = counts[:num_experts]
    padded = (counts + multiple_of - 1) // multiple_of * multiple_of
    sizes = padded.tolist()
    rows = sum(sizes)

    pair = experts.argsort(stable=True)
    expert = experts[pair]
    # Sorted without padding, a pair would sit at its rank; each expert before it shifts it by its padding.
    shift = torch.cat(((padded - counts).cumsum(0) - (padded - counts), counts.new_zeros(1)))
    row = torch.arange(len(pair), device=pair.device) + shift[expert]
    row = torch.where(expert < num_experts, row, rows)

    unused = pair.new_tensor([tokens * slots])
    # Row S collects the slots that are not used and is cut off.
    pair_S = unused.expand(rows + 1).scatter(0, row, pair)[:rows]
    cell_S = (pair_S // slots) * num_experts + torch.cat((experts, experts.new_zeros(1)))[pair_S]
    return DispatchPlan(
        pair_S, cell_S, torch.empty_like(row).scatter_(0, pair, row).view(tokens, slots), tuple(sizes)
    )


def plan_routing(record: RoutingRecord, rows_TD: Tensor) -> DispatchPlan:
    """The plan of a layer's routing; ``rows_TD`` is what will be gathered, in the device and dtype it has."""
    return plan_dispatch(
        record.experts_BNK.flatten(0, 1),
        record.used_BNK.flatten(0, 1),
        record.num_experts,
        multiple_of=_slice_multiple(rows_TD.device.type, rows_TD.dtype),
    )


def _slice_multiple(device_type: str, dtype: torch.dtype) -> int:
    """Row multiple of the experts' slices.

    On CPU, oneDNN compiles a half-precision kernel for every new shape (2 to 5 ms, ten times the product
    itself), and the slices' sizes change with every batch. Rounded up, they repeat and kernels are reused.
    """
    return 128 if device_type == "cpu" and dtype in (torch.bfloat16, torch.float16) else 1


class _GatherRows(torch.autograd.Function):
    """``source[index]``, with the gradient gathered through the inverse index instead of scattered.

    An index equal to the number of rows reads a row of zeros. ``inverse_MC`` lists, for each of the M source
    rows, the output rows made from it, padded with the number of output rows.
    """

    @staticmethod
    def forward(ctx: Any, source_MD: Tensor, index: Tensor, inverse_MC: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_MC)
        return _with_zero_row(source_MD).index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inverse_MC,) = ctx.saved_tensors
        padded = _with_zero_row(gradients[0])
        first, *others = [padded.index_select(0, column) for column in inverse_MC.unbind(1)]
        return sum(others, start=first), None, None


def _with_zero_row(rows: Tensor) -> Tensor:
    return torch.cat((rows, rows.new_zeros(1, rows.shape[1])))


def gather_tokens(tokens_TD: Tensor, plan: DispatchPlan) -> Tensor:
    """The tokens in the order of the plan, (S, D)."""
    return _GatherRows.apply(tokens_TD, plan.pair_S // plan.row_TK.shape[1], plan.row_TK)


def gather_projections(projections_TER: Tensor, plan: DispatchPlan) -> Tensor:
    """For each row of the plan, the token's projection on that expert's basis, (S, R)."""
    tokens, experts, _ = projections_TER.shape
    rows = len(plan.cell_S)
    inverse = plan.cell_S.new_full((tokens * experts + 1,), rows)
    inverse = inverse.scatter(0, plan.cell_S, torch.arange(rows, device=inverse.device))[:-1]
    return _GatherRows.apply(projections_TER.flatten(0, 1), plan.cell_S, inverse[:, None])


def combine(slices: list[Tensor], gates_TK: Tensor, plan: DispatchPlan) -> Tensor:
    """Weighted sum over each token's experts, (T, D), from the experts' outputs on their slices.

    Args:
        slices: outputs (n_e, D) of all experts in order, n_e as in ``plan.sizes_E``.
        gates_TK: weights of the slots. A slot that is not used adds exactly 0, whatever other rows hold.
        plan: the plan by which the slices were made.
    """
    outputs = _GatherRows.apply(torch.cat(slices), plan.row_TK.flatten(), plan.pair_S[:, None])
    return (outputs.unflatten(0, gates_TK.shape) * gates_TK.unsqueeze(-1)).sum(dim=1)
