"""The thin Cayley map, its inverse, and products with a frame that is never written out.

With ``A`` the top C x C block of the parameter, ``L`` its strict lower triangle, ``S = L - L^T`` and ``B``
the rows below, let ``M = I + S + B^T B`` and ``Y = M^-1 start``. Then ``Q = [2 Y - start; -2 B Y]`` has
orthonormal columns for every parameter, at the cost of a C x C system. ``start`` is a fixed orthogonal
matrix, the polar factor of the top block of the frame that was loaded, so training begins at ``S = 0`` and
``B^T B <= I``, where ``M`` is best conditioned. For a square Q this is the Cayley map times a fixed
orthogonal start. (Cayley 1846; Wen & Yin 2013, doi:10.1007/s10107-012-0584-1.)

Symbols beside those of the package: M matrices of D rows and C columns, n rows of data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALLEST_SPLIT = 64
"""Matrices up to this size are inverted by LAPACK."""


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


class _RightSolve(torch.autograd.Function):
    """``x system^-1`` with the inverse at hand; x (..., n, C), system and inverse (..., C, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, system: Tensor, inverse: Tensor) -> Tensor:
        solution = x @ inverse
        ctx.save_for_backward(inverse, solution)
        return solution

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        inverse, solution = ctx.saved_tensors
        gradient = gradients[0] @ inverse.mT
        return gradient, -(solution.mT @ gradient), None


class _CayleyFactors(torch.autograd.Function):
    """``B``, ``M / 2`` and its inverse, with one gradient for the first two.

    Autograd would make two products for that of ``B^T B`` and add up three tensors as large as the parameter.
    The inverse has no gradient of its own: :class:`_RightSolve` passes it on to ``M / 2``.
    """

    @staticmethod
    def forward(ctx: Any, weight_MDC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(weight_MDC)
        columns = weight_MDC.shape[-1]
        lower, below = weight_MDC[:, :columns].tril(-1), weight_MDC[:, columns:]
        half_system = torch.baddbmm(lower - lower.mT, below.mT, below, beta=0.5, alpha=0.5)
        half_system.diagonal(dim1=-2, dim2=-1).add_(0.5)
        inverse = inverse_by_blocks(half_system)
        ctx.mark_non_differentiable(inverse)
        return below, half_system, inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (weight_MDC,) = ctx.saved_tensors
        below_MxC, half_MCC, _ = gradients
        columns = weight_MDC.shape[-1]
        gradient = torch.empty_like(weight_MDC)
        torch.sub(half_MCC, half_MCC.mT, out=gradient[:, :columns]).tril_(-1).mul_(0.5)
        symmetric = half_MCC + half_MCC.mT
        below = weight_MDC[:, columns:]
        torch.baddbmm(below_MxC, below, symmetric, alpha=0.5, out=gradient[:, columns:])
        return gradient


def cayley_factors(weight_MDC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``B`` (M, D - C, C), ``M / 2`` (M, C, C) and the inverse of that, which is a constant for autograd."""
    below_MxC, half_MCC, inverse_MCC = _CayleyFactors.apply(weight_MDC)
    return below_MxC, half_MCC, inverse_MCC


def cayley_frame(weight_MDC: Tensor, start_MCC: Tensor) -> Tensor:
    """Thin Cayley map, (M, D, C) free parameters and (M, C, C) orthogonal starts to (M, D, C) frames."""
    below_MxC, half_MCC, inverse_MCC = cayley_factors(weight_MDC)
    twice_Y = _RightSolve.apply(start_MCC.mT, half_MCC.mT, inverse_MCC.mT).mT
    return torch.cat((twice_Y - start_MCC, -below_MxC @ twice_Y), dim=1)


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


@dataclass(frozen=True, eq=False)
class MatrixProduct:
    """Products with one frame ``Q`` (D, C) that is at hand as a matrix."""

    frame_DC: Tensor

    def expand(self, x_nC: Tensor, bias_D: Tensor) -> list[Tensor]:
        """``x Q^T + b`` (n, D), cut into pieces of columns."""
        return [F.linear(x_nC, self.frame_DC, bias_D)]

    def reduce(self, pieces: Sequence[Tensor]) -> Tensor:
        """``x Q`` (n, C) of the pieces of x (n, D)."""
        (x_nD,) = pieces
        return x_nD @ self.frame_DC


@dataclass(frozen=True, eq=False)
class CayleyProduct:
    """The same products from the factors of the Cayley map.

    ``Q x = [2 w - a; -2 B w]`` with ``a = start x`` and ``M w = a``, and ``Q^T x = start^T (2 u - x1)`` with
    ``M^T u = x1 - B^T x2``. A row of data costs C^2 more multiplications for the start and as many for the
    solution than with Q at hand, but Q, which costs D C^2 and twice that in the backward pass, is not
    written out. That is worth it up to about D rows.
    """

    below_xC: Tensor
    half_CC: Tensor
    inverse_CC: Tensor
    start_CC: Tensor

    def expand(self, x_nC: Tensor, bias_D: Tensor) -> list[Tensor]:
        """``x Q^T + b`` (n, D), cut into its first C columns and the others."""
        upper_bias, lower_bias = bias_D.split_with_sizes((len(self.start_CC), len(self.below_xC)))
        minus_a_nC = F.linear(x_nC, -self.start_CC)
        minus_2w_nC = self._solve(minus_a_nC, self.half_CC.mT, self.inverse_CC.mT)
        upper_nC = minus_a_nC - minus_2w_nC + upper_bias
        return [upper_nC, F.linear(minus_2w_nC, self.below_xC, lower_bias)]

    def reduce(self, pieces: Sequence[Tensor]) -> Tensor:
        """``x Q`` (n, C) of the pieces of x (n, D)."""
        upper_nC, lower_nx = pieces
        x_nC = upper_nC - lower_nx @ self.below_xC
        twice_u_nC = self._solve(x_nC, self.half_CC, self.inverse_CC)
        return (twice_u_nC - upper_nC) @ self.start_CC

    def _solve(self, x_nC: Tensor, system_CC: Tensor, inverse_CC: Tensor) -> Tensor:
        """``x system^-1`` in the precision of the system."""
        with torch.autocast(x_nC.device.type, enabled=False):
            return _RightSolve.apply(x_nC.to(system_CC.dtype), system_CC, inverse_CC)
