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
from torch.autograd.function import once_differentiable

from brainage.nn.routing import RoutingRecord


@dataclass(frozen=True, eq=False)
class DispatchPlan:
    """Where each chosen (token, slot) pair goes when the pairs are sorted by expert.

    Attributes:
        pair_S: index ``token * K + slot`` of the pair in each row, T K for a row of padding.
        cell_S: index ``token * E + expert`` of the pair in each row, T E for a row of padding.
        row_TK: the row of each pair, S for a slot that is not used.
        sizes_E: rows of each expert; they sum to S.
        complete: whether every slot is used and no row is padding, so that no index points beyond the rows.
    """

    pair_S: Tensor
    cell_S: Tensor
    row_TK: Tensor
    sizes_E: tuple[int, ...]
    complete: bool

    @property
    def token_S(self) -> Tensor:
        """The token in each row, T for a row of padding."""
        return self.pair_S // self.row_TK.shape[1]


outside_graphs = torch.compiler.disable(
    reason="the sizes of the slices are data: a graph would have to drop or pad tokens to fix them"
)
"""What computes experts on slices stays out of ``torch.compile``."""


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
    sizes, used = torch.stack((padded, counts)).tolist()
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
    row_TK = torch.empty_like(row).scatter_(0, pair, row).view(tokens, slots)
    return DispatchPlan(pair_S, cell_S, row_TK, tuple(sizes), complete=sum(used) == tokens * slots == rows)


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
    rows, the output rows made from it, padded with the number of output rows. ``within`` says that ``index``
    and ``inverse_MC`` hold no such number beyond the rows.
    """

    @staticmethod
    def forward(
        ctx: Any, source_MD: Tensor, index: Tensor, inverse_MC: Tensor, within: tuple[bool, bool]
    ) -> Tensor:
        ctx.save_for_backward(inverse_MC)
        ctx.within = within[1]
        return _padded(source_MD, within[0]).index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse_MC,) = ctx.saved_tensors
        padded = _padded(gradients[0], ctx.within)
        first, *others = [padded.index_select(0, column) for column in inverse_MC.unbind(1)]
        for other in others:
            first += other
        return first, None, None, None


class _Combine(torch.autograd.Function):
    """Weighted sums over the rows of each token; the gradients of rows and gates share one gather."""

    @staticmethod
    def forward(
        ctx: Any, rows_SD: Tensor, gates_TK: Tensor, row_TK: Tensor, pair_S: Tensor, within: bool
    ) -> Tensor:
        ctx.save_for_backward(rows_SD, gates_TK, row_TK, pair_S)
        ctx.within = within
        padded = _padded(rows_SD, within)
        dtype = torch.promote_types(rows_SD.dtype, gates_TK.dtype)
        columns = zip(row_TK.unbind(1), gates_TK.to(dtype).unsqueeze(-1).unbind(1), strict=True)
        row_T, gate_T1 = next(columns)
        y_TD = padded.index_select(0, row_T).to(dtype).mul_(gate_T1)
        for row_T, gate_T1 in columns:
            y_TD.addcmul_(padded.index_select(0, row_T).to(dtype), gate_T1)
        return y_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        rows_SD, gates_TK, row_TK, pair_S = ctx.saved_tensors
        gradient_SD = _padded(gradients[0], ctx.within).index_select(0, pair_S // row_TK.shape[1])
        gate_S1 = _padded(gates_TK.reshape(-1, 1), ctx.within).index_select(0, pair_S)
        into_gate_S1 = (gradient_SD * rows_SD).sum(dim=1, keepdim=True)
        into_gate_TK = _padded(into_gate_S1, ctx.within).index_select(0, row_TK.flatten()).view_as(row_TK)
        into_rows_SD = gradient_SD.mul_(gate_S1).to(rows_SD.dtype)
        return into_rows_SD, into_gate_TK.to(gates_TK.dtype), None, None, None


def _padded(rows: Tensor, within: bool) -> Tensor:
    """The rows, and one of zeros after them unless no index points there."""
    return rows if within else torch.cat((rows, rows.new_zeros(1, rows.shape[1])))


def gather_tokens(tokens_TD: Tensor, plan: DispatchPlan) -> Tensor:
    """The tokens in the order of the plan, (S, D)."""
    return _GatherRows.apply(tokens_TD, plan.token_S, plan.row_TK, (plan.complete, plan.complete))


def gather_projections(projections_TER: Tensor, plan: DispatchPlan) -> Tensor:
    """For each row of the plan, the token's projection on that expert's basis, (S, R)."""
    tokens, experts, _ = projections_TER.shape
    rows = len(plan.cell_S)
    inverse = plan.cell_S.new_full((tokens * experts + 1,), rows)
    inverse = inverse.scatter(0, plan.cell_S, torch.arange(rows, device=inverse.device))[:-1]
    within = (plan.complete, plan.complete and rows == tokens * experts)
    return _GatherRows.apply(projections_TER.flatten(0, 1), plan.cell_S, inverse[:, None], within)


def combine(rows_SD: Tensor, gates_TK: Tensor, plan: DispatchPlan) -> Tensor:
    """Weighted sum over each token's experts, (T, D), from the experts' outputs in the order of the plan.

    Args:
        rows_SD: outputs of all experts.
        gates_TK: weights of the slots. A slot that is not used adds exactly 0, whatever other rows hold.
        plan: the plan by which the rows were made.
    """
    return _Combine.apply(rows_SD, gates_TK, plan.row_TK, plan.pair_S, plan.complete)
