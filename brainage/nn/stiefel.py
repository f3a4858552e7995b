"""Matrices with orthonormal columns as a parametrization: exact after every optimiser step.

Two maps from free parameters to the Stiefel manifold:

* ``cayley``: the thin Cayley map (:mod:`brainage.nn.cayley`).
* ``qr``: Gram-Schmidt as a Householder QR whose signs are fixed by ``diag(R) > 0``, which makes it unique and
  smooth on matrices of full rank.

``none`` is the ablation: the parameter is the matrix, orthonormal at the start and free from then on.

Both maps run in float32 or better, outside autocast: bfloat16 would lose orthonormality to about 5e-3. For
the same reason keep these modules in float32 and use autocast, rather than ``module.bfloat16()``. A state
dict may be stored in half precision: a ``start`` that was rounded is made orthogonal again when it is loaded.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.nn.cayley import cayley_frame, inverse_cayley_frame
from brainage.nn.kept import Kept, in_inference

Orthogonalization = Literal["cayley", "qr", "none"]
ORTHOGONALIZATIONS = ("cayley", "qr", "none")
SMALLEST_FACTORED = 96
"""Columns from which on products with the factors of a frame can be cheaper than writing it out."""


def qr_frame(matrix_MDC: Tensor) -> Tensor:
    """Q of the thin QR decomposition with ``diag(R) > 0``; (M, D, C) of full column rank to (M, D, C)."""
    q, r = torch.linalg.qr(matrix_MDC)
    signs = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q.dtype)
    return q * signs.unsqueeze(-2)


@torch.no_grad()
def orthonormality_error(frames_MDC: Tensor) -> float:
    """``max|Q^T Q - I|`` over all frames (M, D, C)."""
    identity = torch.eye(frames_MDC.shape[-1], dtype=frames_MDC.dtype, device=frames_MDC.device)
    return float((frames_MDC.mT @ frames_MDC - identity).abs().max())


class OrthonormalFrames(nn.Module):
    """``count`` independent matrices of ``dim`` rows and ``columns`` <= ``dim`` orthonormal columns.

    Begins at frames drawn uniformly (Haar). The parameter takes no weight decay: its norm says how far a
    frame has turned, not how large a weight is (see :func:`brainage.nn.no_weight_decay_parameters`).

    Args:
        count: number of matrices M.
        dim: rows D.
        columns: orthonormal columns C.
        orthogonalization: ``"cayley"``, ``"qr"``, or ``"none"`` for matrices that are not held orthonormal.

    Raises:
        ConfigError: for sizes below 1, more columns than rows, or an unknown map.
    """

    start_MCC: Tensor

    def __init__(
        self, count: int, dim: int, columns: int, orthogonalization: Orthogonalization = "cayley"
    ) -> None:
        super().__init__()
        if orthogonalization not in ORTHOGONALIZATIONS:
            raise ConfigError("orthogonalization", orthogonalization, f"must be one of {ORTHOGONALIZATIONS}")
        if not 1 <= columns <= dim:
            rule = f"must be between 1 and dim ({dim}), because no more than dim vectors can be orthonormal"
            raise ConfigError("columns", columns, rule)
        if count < 1:
            raise ConfigError("count", count, "must be at least 1")
        self.orthogonalization = orthogonalization
        self._kept = Kept[Tensor]()
        self.weight_MDC = nn.Parameter(torch.empty(count, dim, columns))
        if orthogonalization == "cayley":
            self.register_buffer("start_MCC", torch.empty(count, columns, columns))
            self.register_load_state_dict_post_hook(_restore_orthogonality)
        self.load_frames(qr_frame(torch.randn(count, dim, columns)))

    @torch.no_grad()
    def load_frames(self, frames_MDC: Tensor) -> None:
        """Set the parameters so that ``self()`` returns the given frames, orthonormal columns (M, D, C).

        Raises:
            ConfigError: if the shape differs or the columns are not orthonormal to 1e-3.
        """
        if frames_MDC.shape != self.weight_MDC.shape:
            rule = f"must have the shape {tuple(self.weight_MDC.shape)}"
            raise ConfigError("frames_MDC", tuple(frames_MDC.shape), rule)
        frames = frames_MDC.to(self.weight_MDC)
        # A layer may be built or loaded inside an autocast region, whose products are not exact enough.
        with torch.autocast(frames.device.type, enabled=False):
            error = orthonormality_error(frames)
            if not error < 1e-3:
                raise ConfigError("frames_MDC", f"max|Q^T Q - I| of {error:.1e}", "must be below 1e-3")
            if self.orthogonalization == "cayley":
                weight, start = inverse_cayley_frame(frames)
                self.weight_MDC.copy_(weight)
                self.start_MCC.copy_(start)
            else:
                self.weight_MDC.copy_(frames)

    @torch.compiler.disable(reason="frames that are kept between calls would be computed anew in a graph")
    def forward(self) -> Tensor:
        """The frames (M, D, C), in float32 or in the parameter's own dtype where that is wider.

        In eval mode without gradients they are kept and given again until a parameter changes, so do not
        write into them. A change that autograd does not count (through ``.data``) is seen only after
        :meth:`train` or :meth:`eval` was called.
        """
        return self._kept.get(self.sources(), self.fresh) if in_inference(self) else self.fresh()

    def sources(self) -> tuple[Tensor, ...]:
        """The tensors that frames are computed from."""
        return (self.weight_MDC, *self.buffers())

    def factored(self, rows: int) -> bool:
        """Whether products with ``rows`` rows of data a frame are cheaper if no frame is written out.

        In evaluation frames are kept, and cost nothing. Where the global setting makes float32 products
        inexact, frames are computed in float64, which the products with their factors are not.
        """
        small = self.weight_MDC.shape[2] < SMALLEST_FACTORED or rows > self.weight_MDC.shape[1]
        exact = self._exact_dtype() == torch.promote_types(self.weight_MDC.dtype, torch.float32)
        return self.orthogonalization == "cayley" and exact and not in_inference(self) and not small

    def factors(self) -> tuple[Tensor, Tensor]:
        """Parameters (M, D, C) and starts (M, C, C) of the Cayley map, in float32 or better."""
        dtype = torch.promote_types(self.weight_MDC.dtype, torch.float32)
        return self.weight_MDC.to(dtype), self.start_MCC.to(dtype)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, and forget the frames that were kept."""
        self._kept.forget()
        return super().train(mode)

    def _exact_dtype(self) -> torch.dtype:
        dtype = torch.promote_types(self.weight_MDC.dtype, torch.float32)
        # A global setting may let float32 products run in TF32 or bfloat16; float64 is never reduced.
        return dtype if torch.get_float32_matmul_precision() == "highest" else torch.float64

    def fresh(self) -> Tensor:
        """The frames (M, D, C), computed anew."""
        weight = self.weight_MDC.to(self._exact_dtype())
        dtype = torch.promote_types(self.weight_MDC.dtype, torch.float32)
        with torch.autocast(weight.device.type, enabled=False):
            if self.orthogonalization == "cayley":
                return cayley_frame(weight, self.start_MCC.to(weight.dtype)).to(dtype)
            return (qr_frame(weight) if self.orthogonalization == "qr" else weight).to(dtype)


@torch.no_grad()
def _restore_orthogonality(module: OrthonormalFrames, _: object) -> None:
    """Replace a start that a half-precision checkpoint rounded by its nearest orthogonal matrix.

    One that was stored in full is left as it is, bit by bit, so that training resumes exactly.
    """
    with torch.autocast(module.start_MCC.device.type, enabled=False):
        if orthonormality_error(module.start_MCC) > 1e-5:
            left, _, right_t = torch.linalg.svd(module.start_MCC.double())
            module.start_MCC.copy_(left @ right_t)


class StiefelBasis(nn.Module):
    """Routing bases of the experts: E matrices of shape (D, R) with orthonormal columns, R < D.

    Args:
        num_bases: number of experts E.
        dim: width D.
        rank: columns R of one basis, smaller than ``dim``.
        coupling: ``"joint"`` cuts one D x (E R) orthonormal matrix into E blocks, so the subspaces are
            orthogonal to each other (E R <= D); ``"independent"`` keeps only each basis orthonormal.
        orthogonalization: ``"cayley"`` or ``"qr"``.

    Raises:
        ConfigError: when a size breaks the rules above.
    """

    def __init__(
        self,
        num_bases: int,
        dim: int,
        rank: int,
        coupling: Literal["joint", "independent"] = "joint",
        orthogonalization: Orthogonalization = "cayley",
    ) -> None:
        super().__init__()
        if coupling not in ("joint", "independent"):
            raise ConfigError("coupling", coupling, "must be 'joint' or 'independent' for a StiefelBasis")
        check_routing_rank(num_bases, dim, rank, orthogonal_blocks=coupling == "joint")
        self.num_bases, self.rank, self.coupling = num_bases, rank, coupling
        count, columns = (1, num_bases * rank) if coupling == "joint" else (num_bases, rank)
        self.frames = OrthonormalFrames(count, dim, columns, orthogonalization)

    def forward(self) -> Tensor:
        """The bases (E, D, R)."""
        frames = self.frames()
        return split_columns(frames[0], self.num_bases, self.rank) if self.coupling == "joint" else frames

    def load_bases(self, bases_EDR: Tensor) -> None:
        """Set the parameters so that ``self()`` returns ``bases_EDR`` (for ``joint`` also orthogonal to each
        other); raises ConfigError where they do not fit."""
        joint = self.coupling == "joint"
        self.frames.load_frames(torch.cat(tuple(bases_EDR), dim=-1)[None] if joint else bases_EDR)


def split_columns(frame_DC: Tensor, num_blocks: int, rank: int) -> Tensor:
    """The first E R columns of (D, C) as E blocks of R neighbouring columns: (E, D, R)."""
    return frame_DC[:, : num_blocks * rank].unflatten(1, (num_blocks, rank)).movedim(1, 0)


def check_routing_rank(num_experts: int, dim: int, rank: int, orthogonal_blocks: bool) -> None:
    """Refuse ranks with which routing by subspaces is impossible or blind.

    Raises:
        ConfigError: if E < 1, R < 1, R >= D, or E R > D while the blocks must be orthogonal to each other.
    """
    if num_experts < 1:
        raise ConfigError("num_experts", num_experts, "must be at least 1")
    if rank < 1:
        raise ConfigError("rank", rank, "must be at least 1")
    if rank >= dim:
        raise ConfigError(
            "rank",
            rank,
            f"must be smaller than dim ({dim}), because a square orthogonal V keeps every angle, so that "
            "cos(V^T x, V^T c) = cos(x, c) is the same for all experts and routing is blind",
        )
    if orthogonal_blocks and num_experts * rank > dim:
        raise ConfigError(
            "rank",
            rank,
            f"times num_experts ({num_experts}) must be at most dim ({dim}), because the experts' subspaces "
            "are orthogonal to each other in the couplings 'shared' and 'joint'",
        )
