"""The thin Cayley map and its inverse.

With ``A`` the top C x C block of the parameter, ``L`` its strict lower triangle, ``S = L - L^T`` and ``B``
the rows below, let ``M = I + S + B^T B`` and ``Y = M^-1 start``. Then ``Q = [2 Y - start; -2 B Y]`` has
orthonormal columns for every parameter, at the cost of a C x C system. ``start`` is a fixed orthogonal
matrix, the polar factor of the top block of the frame that was loaded, so training begins at ``S = 0`` and
``B^T B <= I``, where ``M`` is best conditioned. For a square Q this is the Cayley map times a fixed
orthogonal start. (Cayley 1846; Wen & Yin 2013, doi:10.1007/s10107-012-0584-1.)

Symbols beside those of the package: M matrices of D rows and C columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALLEST_SPLIT = 64
"""Matrices up to this size are inverted by LAPACK."""
SMALLEST_GRAM = 192
"""Up to so many columns ``B^T B`` is computed whole, symmetric or not."""


@torch.no_grad()
def inverse_by_blocks(system_MCC: Tensor) -> Tensor:
    """Inverses (M, C, C) of matrices whose symmetric part is positive definite.

    Divided in halves with the Schur complement, which is of the same kind, so no pivots are needed: nearly
    all the work is matrix products. LAPACK's LU of a batch is no faster on one thread, and on several it hung
    in torch 2.13 with oneMKL ("Parameter 6 was incorrect on entry to SLASWP", 8 matrices of 256 rows).
    """
    size = system_MCC.shape[-1]
    if size <= SMALLEST_SPLIT:
        return torch.linalg.inv(system_MCC)
    half = size // 2
    upper, right = system_MCC[:, :half, :half], system_MCC[:, :half, half:]
    left, lower = system_MCC[:, half:, :half], system_MCC[:, half:, half:]
    upper_inverse = inverse_by_blocks(upper)
    upper_right = upper_inverse @ right
    lower_inverse = inverse_by_blocks(torch.baddbmm(lower, left, upper_right, alpha=-1))
    lower_left = lower_inverse @ left @ upper_inverse
    inverse = torch.empty_like(system_MCC)
    torch.baddbmm(upper_inverse, upper_right, lower_left, out=inverse[:, :half, :half])
    torch.neg(upper_right @ lower_inverse, out=inverse[:, :half, half:])
    torch.neg(lower_left, out=inverse[:, half:, :half])
    inverse[:, half:, half:] = lower_inverse
    return inverse


def half_system(weight_MDC: Tensor) -> Tensor:
    """``M / 2`` (M, C, C) of the parameters; of the symmetric ``B^T B`` only one half is computed."""
    columns = weight_MDC.shape[-1]
    lower = weight_MDC[:, :columns].tril(-1)
    half_MCC = _gram(weight_MDC[:, columns:]).add_(lower).sub_(lower.mT).mul_(0.5)
    half_MCC.diagonal(dim1=-2, dim2=-1).add_(0.5)
    return half_MCC


def _gram(tall_MDC: Tensor) -> Tensor:
    """``B^T B`` (M, C, C), by blocks where that is worth it."""
    columns = tall_MDC.shape[-1]
    if columns <= SMALLEST_GRAM:
        return tall_MDC.mT @ tall_MDC
    half = columns // 2
    left, right = tall_MDC[..., :half], tall_MDC[..., half:]
    across = left.mT @ right
    upper = torch.cat((_gram(left), across), dim=-1)
    return torch.cat((upper, torch.cat((across.mT, _gram(right)), dim=-1)), dim=-2)


def finish_weight_gradient(gradient_MDC: Tensor, weight_MDC: Tensor, half_MCC: Tensor) -> None:
    """Add, in place, what a gradient ``half_MCC`` of ``M / 2`` means for the parameters.

    The rows below the top block hold their gradient as factors of products already; the top block is set.
    """
    columns = weight_MDC.shape[-1]
    torch.sub(half_MCC, half_MCC.mT, out=gradient_MDC[:, :columns]).tril_(-1).mul_(0.5)
    symmetric_MCC = half_MCC + half_MCC.mT
    gradient_MDC[:, columns:].baddbmm_(weight_MDC[:, columns:], symmetric_MCC, alpha=0.5)


class _CayleyFrame(torch.autograd.Function):
    """The map with its gradient in closed form.

    Autograd would make one product more, for that of ``B^T B``, and add up three tensors as large as the
    parameter.
    """

    @staticmethod
    def forward(ctx: Any, weight_MDC: Tensor, start_MCC: Tensor) -> Tensor:
        columns = weight_MDC.shape[-1]
        inverse_MCC = inverse_by_blocks(half_system(weight_MDC))
        twice_Y_MCC = inverse_MCC @ start_MCC
        frame_MDC = torch.empty_like(weight_MDC, memory_format=torch.contiguous_format)
        torch.sub(twice_Y_MCC, start_MCC, out=frame_MDC[:, :columns])
        torch.bmm(weight_MDC[:, columns:], twice_Y_MCC, out=frame_MDC[:, columns:]).neg_()
        ctx.save_for_backward(weight_MDC, inverse_MCC, twice_Y_MCC)
        return frame_MDC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        weight_MDC, inverse_MCC, twice_Y_MCC = ctx.saved_tensors
        columns = weight_MDC.shape[-1]
        upper_MCC, lower_MxC = gradients[0][:, :columns], gradients[0][:, columns:]
        solved_MCC = inverse_MCC.mT @ torch.baddbmm(
            upper_MCC, weight_MDC[:, columns:].mT, lower_MxC, alpha=-1
        )
        gradient_MDC = torch.empty_like(weight_MDC, memory_format=torch.contiguous_format)
        torch.bmm(lower_MxC, twice_Y_MCC.mT, out=gradient_MDC[:, columns:]).neg_()
        finish_weight_gradient(gradient_MDC, weight_MDC, -(solved_MCC @ twice_Y_MCC.mT))
        return gradient_MDC, None


def cayley_frame(weight_MDC: Tensor, start_MCC: Tensor) -> Tensor:
    """Thin Cayley map, (M, D, C) free parameters and (M, C, C) orthogonal starts to (M, D, C) frames."""
    return _CayleyFrame.apply(weight_MDC, start_MCC)


def inverse_cayley_frame(frame_MDC: Tensor) -> tuple[Tensor, Tensor]:
    """Closed-form inverse of :func:`cayley_frame`: (M, D, C) frames to (weight_MDC, start_MCC).

    The top block is split into its polar factors ``P start`` (P symmetric, no eigenvalue below 0), so that
    ``I + P`` can always be inverted; the skew part is then 0 and ``B = -Q2 start^T (I + P)^-1``.
    """
    columns = frame_MDC.shape[-1]
    top, below = frame_MDC[:, :columns], frame_MDC[:, columns:]
    left, singular, right_t = torch.linalg.svd(top)
    start = left @ right_t
    # (I + P)^-1 has the singular vectors of P.
    inverse = (left / (1 + singular.unsqueeze(-2))) @ left.mT
    lower_rows = -below @ start.mT @ inverse
    return torch.cat((torch.zeros_like(top), lower_rows), dim=1), start
