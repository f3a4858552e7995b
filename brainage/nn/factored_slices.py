"""The networks of :mod:`brainage.nn.slices` where U and V are Cayley maps that are never written out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from brainage.nn.cayley import finish_weight_gradient, half_system, inverse_by_blocks
from brainage.nn.slices import gelu_gradient, product_dtype, product_into


def factored_networks(
    rows_SC: Tensor,
    sizes_E: tuple[int, ...],
    first: tuple[Tensor, Tensor],
    bias_EH: Tensor,
    second: tuple[Tensor, Tensor],
    second_bias_EC: Tensor,
    spectra_EC: tuple[Tensor, Tensor],
) -> Tensor:
    """Outputs (S, C) of each expert on its slice; U and V are the maps of ``(weight_EHC, start_ECC)``.

    ``Q x = [2 w - a; -2 B w]`` with ``a = start x`` and ``M w = a``, and ``Q^T x = start^T (2 u - x1)`` with
    ``M^T u = x1 - B^T x2``. A row of data costs C^2 more multiplications for the start and as many for the
    solution than with Q at hand, but Q, which costs D C^2 and twice that in the backward pass, is not
    written out. That is worth it up to about D rows a slice.
    """
    low = product_dtype(rows_SC, first[0])
    with torch.autocast(rows_SC.device.type, enabled=False):
        return _FactoredNetworks.apply(
            rows_SC, *first, bias_EH, *second, second_bias_EC, *spectra_EC, sizes_E, low
        )


class _FactoredNetworks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows_SC: Tensor,
        first_weight_EHC: Tensor,
        first_start_ECC: Tensor,
        bias_EH: Tensor,
        second_weight_EHC: Tensor,
        second_start_ECC: Tensor,
        second_bias_EC: Tensor,
        first_spectrum_EC: Tensor,
        second_spectrum_EC: Tensor,
        sizes_E: tuple[int, ...],
        low: torch.dtype,
    ) -> Tensor:
        columns, dtype = rows_SC.shape[1], first_weight_EHC.dtype
        first_inverse_ECC = inverse_by_blocks(half_system(first_weight_EHC))
        second_inverse_ECC = inverse_by_blocks(half_system(second_weight_EHC))
        y_SC = rows_SC.new_empty(rows_SC.shape, dtype=dtype)
        kept: list[Tensor] = []
        for e, (x_nC, y_nC) in enumerate(zip(rows_SC.split(sizes_E), y_SC.split(sizes_E), strict=True)):
            a_nC = ((x_nC * first_spectrum_EC[e]).to(low) @ first_start_ECC[e].to(low).T).to(dtype)
            twice_w_nC = a_nC @ first_inverse_ECC[e].T
            upper_nC = (twice_w_nC - a_nC).add_(bias_EH[e, :columns])
            below = first_weight_EHC[e, columns:].to(low)
            lower_nx = torch.addmm(bias_EH[e, columns:].to(low), twice_w_nC.to(low), below.T, alpha=-1)
            inner_nC, inner_nx = F.gelu(upper_nC), F.gelu(lower_nx)
            inner_low_nC = inner_nx @ second_weight_EHC[e, columns:].to(low)
            twice_u_nC = (inner_nC - inner_low_nC) @ second_inverse_ECC[e]
            reduced_nC = (twice_u_nC - inner_nC).to(low) @ second_start_ECC[e].to(low)
            torch.addcmul(second_bias_EC[e], reduced_nC.to(dtype), second_spectrum_EC[e], out=y_nC)
            kept += [twice_w_nC, upper_nC, lower_nx, inner_nx, twice_u_nC, reduced_nC]
        ctx.save_for_backward(
            rows_SC,
            first_weight_EHC,
            first_start_ECC,
            first_inverse_ECC,
            second_weight_EHC,
            second_start_ECC,
            second_inverse_ECC,
            first_spectrum_EC,
            second_spectrum_EC,
            second_bias_EC,
            *kept,
        )
        ctx.sizes_E, ctx.low = sizes_E, low
        return y_SC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows_SC, first_EHC, start_ECC, first_inverse_ECC, *others = ctx.saved_tensors
        second_EHC, second_start_ECC, second_inverse_ECC, *others = others
        first_spectrum_EC, second_spectrum_EC, bias_EC, *kept = others
        columns, low, dtype = rows_SC.shape[1], ctx.low, first_EHC.dtype
        into_rows_SC = torch.empty_like(rows_SC)
        into_first_EHC, into_second_EHC = torch.empty_like(first_EHC), torch.empty_like(second_EHC)
        into_bias_EH = first_EHC.new_empty(first_EHC.shape[:2])
        into_second_bias_EC = torch.empty_like(bias_EC)
        into_first_spectrum_EC = torch.empty_like(first_spectrum_EC)
        into_second_spectrum_EC = torch.empty_like(second_spectrum_EC)
        first_half_ECC, second_half_ECC = torch.empty_like(start_ECC), torch.empty_like(start_ECC)
        with torch.autocast(rows_SC.device.type, enabled=False):
            slices = (tensor.split(ctx.sizes_E) for tensor in (rows_SC, gradients[0], into_rows_SC))
            for e, (x_nC, gradient_nC, into_x_nC) in enumerate(zip(*slices, strict=True)):
                twice_w_nC, upper_nC, lower_nx, inner_nx, twice_u_nC, reduced_nC = kept[6 * e : 6 * e + 6]
                into_second_bias_EC[e] = gradient_nC.sum(0)
                into_second_spectrum_EC[e] = (gradient_nC * reduced_nC).sum(0)
                # Through V^T: start, solution, and the two parts of the frame.
                scaled_nC = (gradient_nC * second_spectrum_EC[e]).to(low)
                into_u_nC = (scaled_nC @ second_start_ECC[e].to(low).T).to(dtype)
                solved_nC = into_u_nC @ second_inverse_ECC[e].T
                torch.mm(twice_u_nC.T, solved_nC, out=second_half_ECC[e])
                into_inner_nC = solved_nC - into_u_nC
                solved_low_nC = solved_nC.neg().to(low)
                into_inner_nx = solved_low_nC @ second_EHC[e, columns:].to(low).T
                product_into(into_second_EHC[e, columns:], inner_nx.T, solved_low_nC)
                # Through the activation and U.
                into_upper_nC = gelu_gradient(into_inner_nC, upper_nC)
                into_lower_nx = gelu_gradient(into_inner_nx, lower_nx)
                into_bias_EH[e, :columns] = into_upper_nC.sum(0)
                into_bias_EH[e, columns:] = into_lower_nx.sum(0)
                into_w_nC = into_upper_nC - into_lower_nx @ first_EHC[e, columns:].to(low)
                product_into(into_first_EHC[e, columns:], into_lower_nx.T, -twice_w_nC.to(low))
                solved_nC = into_w_nC @ first_inverse_ECC[e]
                torch.mm(solved_nC.T, twice_w_nC, out=first_half_ECC[e])
                into_scaled_nC = (solved_nC - into_upper_nC).to(low) @ start_ECC[e].to(low)
                into_first_spectrum_EC[e] = (into_scaled_nC * x_nC).sum(0)
                into_x_nC.copy_(into_scaled_nC * first_spectrum_EC[e])
            finish_weight_gradient(into_first_EHC, first_EHC, first_half_ECC.neg_())
            finish_weight_gradient(into_second_EHC, second_EHC, second_half_ECC.neg_())
        into_first = (into_first_EHC, None, into_bias_EH)
        into_second = (into_second_EHC, None, into_second_bias_EC)
        spectra = (into_first_spectrum_EC, into_second_spectrum_EC)
        return into_rows_SC, *into_first, *into_second, *spectra, None, None
