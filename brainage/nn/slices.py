"""Two-layer networks on contiguous slices of rows, one network a slice, with gradients in closed form.

``y = s2 * (V^T gelu(U (s1 * x) + b1)) + b2`` for the rows of each slice, U and V (H, C). Outputs and
gradients of all experts are written in place: autograd would join those of the slices by copies as large as
the weights. An empty slice gives its expert a gradient of exactly zero. Gradients cannot be differentiated
again.

Symbols beside those of the package: S rows of all slices, n rows of one, C width of a row.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

gelu_gradient = torch.ops.aten.gelu_backward


def networks(
    rows_SC: Tensor,
    sizes_E: tuple[int, ...],
    first_EHC: Tensor,
    bias_EH: Tensor,
    second_EHC: Tensor,
    second_bias_EC: Tensor,
    spectra_EC: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Outputs (S, C) of each expert on its slice; spectra of None are ones."""
    low = product_dtype(rows_SC, first_EHC)
    with torch.autocast(rows_SC.device.type, enabled=False):
        first, bias, second = first_EHC.to(low), bias_EH.to(low), second_EHC.to(low)
        first_spectrum, second_spectrum = (None, None) if spectra_EC is None else spectra_EC
        run = _Networks.apply if torch.is_grad_enabled() else _run_networks
        return run(rows_SC, first, bias, second, second_bias_EC, first_spectrum, second_spectrum, sizes_E)


def slice_products(rows_SC: Tensor, sizes_E: tuple[int, ...], matrix_EDC: Tensor, bias_ED: Tensor) -> Tensor:
    """``W_e x + b_e`` (S, D) for the rows of each slice."""
    low = product_dtype(rows_SC, matrix_EDC)
    with torch.autocast(rows_SC.device.type, enabled=False):
        return _Products.apply(rows_SC.to(low), matrix_EDC.to(low), bias_ED.to(low), sizes_E)


def product_dtype(rows: Tensor, weight: Tensor) -> torch.dtype:
    """What products of rows and weights are computed in, by autocast's rule for ``F.linear``."""
    device = rows.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return torch.promote_types(rows.dtype, weight.dtype)


def product_into(out: Tensor, left: Tensor, right: Tensor) -> None:
    """``out = left @ right``, rounded or widened to the precision of ``out``."""
    if out.dtype == left.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(left @ right)


def _run_networks(
    rows_SC: Tensor,
    first_EHC: Tensor,
    bias_EH: Tensor,
    second_EHC: Tensor,
    second_bias_EC: Tensor,
    first_spectrum_EC: Tensor | None,
    second_spectrum_EC: Tensor | None,
    sizes_E: tuple[int, ...],
    kept: list[Tensor] | None = None,
) -> Tensor:
    """The outputs (S, C); what the gradient needs is appended to ``kept``, for each expert in order."""
    low = first_EHC.dtype
    dtype = low if second_spectrum_EC is None else torch.promote_types(low, second_spectrum_EC.dtype)
    y_SC = rows_SC.new_empty(rows_SC.shape, dtype=dtype)
    for e, (x_nC, y_nC) in enumerate(zip(rows_SC.split(sizes_E), y_SC.split(sizes_E), strict=True)):
        if first_spectrum_EC is not None:
            x_nC = x_nC * first_spectrum_EC[e]
        inner_nH = torch.addmm(bias_EH[e], x_nC.to(low), first_EHC[e].T)
        hidden_nH = torch.ops.aten.gelu_(inner_nH) if kept is None else F.gelu(inner_nH)
        if second_spectrum_EC is None:
            torch.addmm(second_bias_EC[e].to(low), hidden_nH, second_EHC[e], out=y_nC)
            reduced = []
        else:
            reduced = [hidden_nH @ second_EHC[e]]
            torch.addcmul(second_bias_EC[e].to(dtype), reduced[0].to(dtype), second_spectrum_EC[e], out=y_nC)
        if kept is not None:
            kept += [*reduced, inner_nH, hidden_nH]
    return y_SC


class _Networks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows_SC: Tensor,
        first_EHC: Tensor,
        bias_EH: Tensor,
        second_EHC: Tensor,
        second_bias_EC: Tensor,
        first_spectrum_EC: Tensor | None,
        second_spectrum_EC: Tensor | None,
        sizes_E: tuple[int, ...],
    ) -> Tensor:
        kept: list[Tensor] = []
        weights = (first_EHC, bias_EH, second_EHC, second_bias_EC)
        y_SC = _run_networks(rows_SC, *weights, first_spectrum_EC, second_spectrum_EC, sizes_E, kept)
        spectra = (first_spectrum_EC, second_spectrum_EC)
        ctx.save_for_backward(rows_SC, first_EHC, second_EHC, second_bias_EC, *spectra, *kept)
        ctx.sizes_E = sizes_E
        return y_SC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows_SC, first_EHC, second_EHC, bias_EC, first_spectrum_EC, second_spectrum_EC, *kept = (
            ctx.saved_tensors
        )
        per_expert = 2 if second_spectrum_EC is None else 3
        low, sizes = first_EHC.dtype, ctx.sizes_E
        into_rows_SC = torch.empty_like(rows_SC)
        into_first_EHC, into_second_EHC = torch.empty_like(first_EHC), torch.empty_like(second_EHC)
        into_bias_EH = rows_SC.new_empty(first_EHC.shape[:2], dtype=low)
        into_second_bias_EC = torch.empty_like(bias_EC)
        into_first_spectrum_EC = None if first_spectrum_EC is None else torch.empty_like(first_spectrum_EC)
        into_second_spectrum_EC = None if second_spectrum_EC is None else torch.empty_like(second_spectrum_EC)
        with torch.autocast(rows_SC.device.type, enabled=False):
            slices = (tensor.split(sizes) for tensor in (rows_SC, gradients[0], into_rows_SC))
            for e, (x_nC, gradient_nC, into_x_nC) in enumerate(zip(*slices, strict=True)):
                *reduced, inner_nH, hidden_nH = kept[e * per_expert : (e + 1) * per_expert]
                into_second_bias_EC[e] = gradient_nC.sum(0)
                if second_spectrum_EC is not None and into_second_spectrum_EC is not None:
                    into_second_spectrum_EC[e] = (gradient_nC * reduced[0]).sum(0)
                    gradient_nC = gradient_nC * second_spectrum_EC[e]
                gradient_nC = gradient_nC.to(low)
                torch.mm(hidden_nH.T, gradient_nC, out=into_second_EHC[e])
                into_inner_nH = gelu_gradient(gradient_nC @ second_EHC[e].T, inner_nH)
                into_bias_EH[e] = into_inner_nH.sum(0)
                if first_spectrum_EC is None or into_first_spectrum_EC is None:
                    torch.mm(into_inner_nH.T, x_nC.to(low), out=into_first_EHC[e])
                    product_into(into_x_nC, into_inner_nH, first_EHC[e])
                else:
                    scaled_nC = (x_nC * first_spectrum_EC[e]).to(low)
                    torch.mm(into_inner_nH.T, scaled_nC, out=into_first_EHC[e])
                    into_scaled_nC = into_inner_nH @ first_EHC[e]
                    into_first_spectrum_EC[e] = (into_scaled_nC * x_nC).sum(0)
                    into_x_nC.copy_(into_scaled_nC * first_spectrum_EC[e])
        return (
            into_rows_SC,
            into_first_EHC,
            into_bias_EH,
            into_second_EHC,
            into_second_bias_EC,
            into_first_spectrum_EC,
            into_second_spectrum_EC,
            None,
        )


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows_SC: Tensor, matrix_EDC: Tensor, bias_ED: Tensor, sizes_E: tuple[int, ...]
    ) -> Tensor:
        y_SD = rows_SC.new_empty(len(rows_SC), matrix_EDC.shape[1])
        slices = zip(rows_SC.split(sizes_E), y_SD.split(sizes_E), strict=True)
        for e, (x_nC, y_nD) in enumerate(slices):
            torch.addmm(bias_ED[e], x_nC, matrix_EDC[e].T, out=y_nD)
        ctx.save_for_backward(rows_SC, matrix_EDC)
        ctx.sizes_E = sizes_E
        return y_SD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows_SC, matrix_EDC = ctx.saved_tensors
        into_rows_SC = torch.empty_like(rows_SC)
        into_matrix_EDC = rows_SC.new_empty(matrix_EDC.shape)
        into_bias_ED = rows_SC.new_empty(matrix_EDC.shape[:2])
        with torch.autocast(rows_SC.device.type, enabled=False):
            slices = (tensor.split(ctx.sizes_E) for tensor in (rows_SC, gradients[0], into_rows_SC))
            for e, (x_nC, gradient_nD, into_x_nC) in enumerate(zip(*slices, strict=True)):
                torch.mm(gradient_nD, matrix_EDC[e], out=into_x_nC)
                torch.mm(gradient_nD.T, x_nC, out=into_matrix_EDC[e])
                into_bias_ED[e] = gradient_nD.sum(0)
        return into_rows_SC, into_matrix_EDC, into_bias_ED, None
