"""A pretrained dense feed-forward network as the experts of an ERMoE ("upcycling", arXiv 2212.05055)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from brainage.errors import ConfigError
from brainage.nn.experts import SharedBasisExperts
from brainage.nn.moe import ERMoE


class LoadingError(NamedTuple):
    """What of the dense weights the experts cannot hold: for each expert, ``||W - W_e||_F / ||W||_F``.

    Attributes:
        first_E: error of W1.
        second_E: error of W2.
    """

    first_E: Tensor
    second_E: Tensor


@torch.no_grad()
def load_dense_weights(
    layer: ERMoE, first_HD: Tensor, first_bias_H: Tensor, second_DH: Tensor, second_bias_D: Tensor
) -> LoadingError:
    """Give every expert the weights of one dense network ``y = W2 gelu(W1 x + b1) + b2``.

    With the singular value decompositions ``W1 = U S V^T`` and ``W2 = P S' V'^T``, singular values
    descending:

    * ``shared``: the experts' common basis is all of V, so every expert *is* the dense network (error 0 up to
      rounding), and the layer computes it for every token whose gates sum to 1. The directions are dealt to
      the routing blocks in turn, the e-th, (e + E)-th, ... to expert e; those left over belong to no block.
    * ``independent``: every expert keeps the R largest singular values, the best approximation of rank R.
      Exact if neither weight has a rank above R; else the error is ``sqrt(sum_{r > R} s_r^2 / sum_r s_r^2)``.
      All experts have equal bases and so equal scores, until training parts them.
    * ``joint``: as the experts' reading bases are orthogonal to each other, V is dealt to them in turn as for
      ``shared``, R directions each: ``W1_e = W1 V_e V_e^T``. W2 is treated as for ``independent``. Exact only
      for one expert and ranks up to R.

    The bases are set through the closed-form inverse of the maps (:meth:`OrthonormalFrames.load_frames`), in
    the precision of the parameters: a layer in float64 holds the network to 1e-10, one in float32 to 1e-5.

    Args:
        layer: the layer to load; its routing by learned logits, if any, stays as it is.
        first_HD: W1, in the layout of ``nn.Linear``.
        first_bias_H: b1.
        second_DH: W2.
        second_bias_D: b2.

    Returns:
        The relative errors, measured on the loaded layer.

    Raises:
        ConfigError: if a shape does not fit the layer, or a weight is not finite.
    """
    experts, hidden = layer.experts, layer.experts.hidden
    count, hidden_dim = hidden.bias_EH.shape
    dim = experts.bias_ED.shape[1]
    expected = {
        "first_HD": (first_HD, (hidden_dim, dim)),
        "first_bias_H": (first_bias_H, (hidden_dim,)),
        "second_DH": (second_DH, (dim, hidden_dim)),
        "second_bias_D": (second_bias_D, (dim,)),
    }
    for field, (weight, shape) in expected.items():
        if tuple(weight.shape) != shape:
            raise ConfigError(
                field, tuple(weight.shape), f"must have the shape {shape} of the layer's experts"
            )
        if not weight.isfinite().all():
            raise ConfigError(field, "NaN or infinity", "must be finite")

    with torch.autocast(first_HD.device.type, enabled=False):
        first, second = first_HD.double(), second_DH.double()
        left_HH, first_values, right_t_DD = torch.linalg.svd(first)
        write_DD, second_values, inner_t_HH = torch.linalg.svd(second)
        # Of which singular directions each expert is made, (E, C).
        first_columns, second_columns = _directions(layer, dim)
        hidden.first_spectrum_EC.copy_(_padded(first_values, dim)[first_columns])
        hidden.second_spectrum_EC.copy_(_padded(second_values, dim)[second_columns])
        for frames, matrix_HH, columns in (
            (hidden.first_left, left_HH, first_columns),
            (hidden.second_right, inner_t_HH.mT, second_columns),
        ):
            chosen_EHC = torch.stack([_hidden_columns(matrix_HH, wanted) for wanted in columns.tolist()])
            frames.load_frames(chosen_EHC.mT if hidden.transposed else chosen_EHC)
        hidden.bias_EH.copy_(first_bias_H.expand(count, -1))
        if isinstance(experts, SharedBasisExperts):
            experts.reading.load_frames(right_t_DD.mT[:, first_columns[0]][None])
            experts.writing.load_frames(write_DD[None])
            # Held in the coordinates of P.
            experts.bias_ED.copy_((second_bias_D.double() @ write_DD).expand(count, -1))
        else:
            experts.reading.load_bases(right_t_DD.mT[:, first_columns].movedim(1, 0))
            experts.writing.load_frames(write_DD[:, second_columns].movedim(1, 0))
            experts.bias_ED.copy_(second_bias_D.expand(count, -1))
        pairs = zip((first, second), dense_weights(layer), strict=True)
        return LoadingError(*(_relative_error(weight, held.to(weight)) for weight, held in pairs))


def dense_weights(layer: ERMoE) -> tuple[Tensor, Tensor]:
    """The experts' weights written out as full matrices: W1 (E, H, D) and W2 (E, D, H)."""
    experts, hidden = layer.experts, layer.experts.hidden
    left_EHC, right_EHC = hidden.first_left(), hidden.second_right()
    if hidden.transposed:
        left_EHC, right_EHC = left_EHC.mT, right_EHC.mT
    first = (left_EHC * hidden.first_spectrum_EC.unsqueeze(1)) @ experts.reading().mT
    second = (experts.writing() * hidden.second_spectrum_EC.unsqueeze(1)) @ right_EHC.mT
    return first, second


def _directions(layer: ERMoE, dim: int) -> tuple[Tensor, Tensor]:
    """Singular directions of W1 and W2 (0 the strongest) in each column of each expert, both (E, C)."""
    experts, rank = layer.select.num_experts, layer.routing_bases().shape[2]
    dealt_ER = torch.arange(experts * rank).view(rank, experts).T
    if isinstance(layer.experts, SharedBasisExperts):
        in_turn = torch.cat((dealt_ER.flatten(), torch.arange(experts * rank, dim)))
        return in_turn.expand(experts, -1), torch.arange(dim).expand(experts, -1)
    strongest = torch.arange(rank).expand(experts, -1)
    return dealt_ER if layer.experts.reading.coupling == "joint" else strongest, strongest


def _padded(values: Tensor, length: int) -> Tensor:
    return torch.cat((values, values.new_zeros(max(length - len(values), 0))))


def _hidden_columns(matrix_HH: Tensor, wanted: list[int]) -> Tensor:
    """The wanted columns, (H, C). One beyond the matrix belongs to a singular value of 0: any column that is
    not wanted stands in for it, and zeros once there are none (then the *rows* are orthonormal)."""
    size = len(matrix_HH)
    spare = iter(sorted(set(range(size)) - set(wanted)))
    index = [column if column < size else next(spare, size) for column in wanted]
    return torch.cat((matrix_HH, matrix_HH.new_zeros(size, 1)), dim=1)[:, index]


def _relative_error(weight: Tensor, held_Exx: Tensor) -> Tensor:
    error_E = torch.linalg.matrix_norm(held_Exx - weight)
    return error_E / torch.linalg.matrix_norm(weight).clamp(min=torch.finfo(weight.dtype).tiny)
