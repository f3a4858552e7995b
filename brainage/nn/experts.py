"""Feed-forward experts whose weights are ``W = U diag(s) V^T``, with U and V orthonormal at every step.

An expert is ``y = W2 gelu(W1 x + b1) + b2``, with ``W1 = U1 diag(s1) V1^T`` and ``W2 = U2 diag(s2) V2^T``.
The reading bases ``V1`` also serve the router, so the projection ``V1^T x`` is computed once. Spectra may
change sign while they are learned. The sums of their squares begin at the squared norm of ``nn.Linear``'s
default weights, so that an expert's output begins at the scale of a default dense feed-forward network.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from torch import Tensor, nn

from brainage.nn.dispatch import combine, gather_projections, gather_tokens, outside_graphs, plan_routing
from brainage.nn.factored_slices import factored_networks
from brainage.nn.kept import Kept, in_inference
from brainage.nn.routing import RoutingRecord
from brainage.nn.slices import networks, product_dtype, slice_products
from brainage.nn.stiefel import Orthogonalization, OrthonormalFrames, StiefelBasis, split_columns

OWN_BLOCK_GAIN = 2.0
"""Amplitude of a shared-basis expert's spectrum on its own block at the start, relative to the others."""


class HiddenFactors(nn.Module):
    """The factors on the hidden side: U1, V2 (E, H, C), the spectra (E, C) and the bias b1 (E, H).

    For H < C no C columns can be orthonormal in the hidden space; then the rows are.
    """

    def __init__(
        self, num_experts: int, dim: int, columns: int, hidden_dim: int, orthogonalization: Orthogonalization
    ) -> None:
        super().__init__()
        tall, thin = max(hidden_dim, columns), min(hidden_dim, columns)
        self.transposed = hidden_dim < columns
        self.first_left = OrthonormalFrames(num_experts, tall, thin, orthogonalization)
        self.second_right = OrthonormalFrames(num_experts, tall, thin, orthogonalization)
        # nn.Linear draws weights of variance 1 / (3 fan_in); spread their squared norm over the spectrum.
        first = math.sqrt(hidden_dim / (3 * thin))
        second = math.sqrt(dim / (3 * thin))
        self.first_spectrum_EC = nn.Parameter(torch.full((num_experts, columns), first))
        self.second_spectrum_EC = nn.Parameter(torch.full((num_experts, columns), second))
        self.bias_EH = nn.Parameter(torch.empty(num_experts, hidden_dim).uniform_(-1, 1) / math.sqrt(dim))
        self._kept = Kept[tuple[Tensor, Tensor]]()

    def forward(self, coordinates_SC: Tensor, sizes_E: tuple[int, ...], bias_EC: Tensor) -> Tensor:
        """``diag(s2) V2^T gelu(U1 diag(s1) z + b1) + b`` (S, C) for the contiguous slice of each expert."""
        spectra = (self.first_spectrum_EC, self.second_spectrum_EC)
        if in_inference(self):
            sources = (*self.first_left.sources(), *self.second_right.sources(), *spectra)
            low = product_dtype(coordinates_SC, self.bias_EH)
            left, right = self._kept.get(sources, lambda: self._scaled(low), low)
            return networks(coordinates_SC, sizes_E, left, self.bias_EH, right, bias_EC)
        if not self.transposed and self.first_left.factored(sum(sizes_E) // len(sizes_E)):
            first, second = self.first_left.factors(), self.second_right.factors()
            return factored_networks(coordinates_SC, sizes_E, first, self.bias_EH, second, bias_EC, spectra)
        left, right = self.first_left(), self.second_right()
        if self.transposed:
            left, right = left.mT, right.mT
        return networks(coordinates_SC, sizes_E, left, self.bias_EH, right, bias_EC, spectra)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, and forget the weights that were kept."""
        self._kept.forget()
        return super().train(mode)

    def _scaled(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``U1 diag(s1)`` and ``V2 diag(s2)`` (E, H, C), as the products of evaluation take them."""
        frames = (self.first_left.fresh(), self.second_right.fresh())
        left, right = (frame.mT if self.transposed else frame for frame in frames)
        first, second = self.first_spectrum_EC.unsqueeze(1), self.second_spectrum_EC.unsqueeze(1)
        return (left * first).to(dtype), (right * second).to(dtype)


class SharedBasisExperts(nn.Module):
    """Coupling ``shared``: full-rank experts in the coordinates of one D x D orthonormal basis.

    ``W1_e = U1_e diag(s1_e) Q^T`` and ``W2_e = P diag(s2_e) V2_e^T`` with Q and P square, orthonormal and
    shared. Expert e routes by its own block of R columns of Q, on which its spectrum begins larger. The
    products with Q and P are done once for all experts. ``b2`` is held in the coordinates of P.
    """

    def __init__(
        self, num_experts: int, dim: int, rank: int, hidden_dim: int, orthogonalization: Orthogonalization
    ) -> None:
        super().__init__()
        self.num_experts, self.rank = num_experts, rank
        self.reading = OrthonormalFrames(1, dim, dim, orthogonalization)
        self.hidden = HiddenFactors(num_experts, dim, dim, hidden_dim, orthogonalization)
        self.writing = OrthonormalFrames(1, dim, dim, orthogonalization)
        self.bias_ED = nn.Parameter(torch.empty(num_experts, dim).uniform_(-1, 1) / math.sqrt(hidden_dim))
        with torch.no_grad():
            spectrum = self.hidden.first_spectrum_EC
            energy = spectrum.square().sum(dim=1, keepdim=True)
            for expert in range(num_experts):
                spectrum[expert, expert * rank : (expert + 1) * rank] *= OWN_BLOCK_GAIN
            spectrum.mul_((energy / spectrum.square().sum(dim=1, keepdim=True)).sqrt())

    def routing_bases(self) -> Tensor:
        """The experts' routing bases (E, D, R)."""
        return split_columns(self.reading()[0], self.num_experts, self.rank)

    def coordinates(self, x_TD: Tensor) -> Tensor:
        """Coordinates for the experts (T, D)."""
        return x_TD @ self.reading()[0]

    def project(self, x_TD: Tensor, context_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates for the experts (T, D); the router's projections of tokens and contexts (T, E, R)."""
        basis = self.reading()[0]
        blocks = (self.num_experts, self.rank)
        routed = self.num_experts * self.rank
        z_TD = x_TD @ basis
        context = context_TD @ basis[:, :routed]
        return z_TD, z_TD[:, :routed].unflatten(1, blocks), context.unflatten(1, blocks)

    @outside_graphs
    def forward(self, coordinates: Tensor, record: RoutingRecord) -> Tensor:
        """Gated sum of the experts' outputs, (T, D)."""
        plan = plan_routing(record, coordinates)
        rows_SD = self.hidden(gather_tokens(coordinates, plan), plan.sizes_E, self.bias_ED)
        return combine(rows_SD, record.gates_BNK.flatten(0, 1), plan) @ self.writing()[0].T


class LowRankExperts(nn.Module):
    """Couplings ``joint`` and ``independent``: expert e sees only the R directions it routes by.

    ``W1_e = U1_e diag(s1_e) V_e^T`` and ``W2_e = U2_e diag(s2_e) V2_e^T``, all of rank R.
    """

    def __init__(
        self,
        num_experts: int,
        dim: int,
        rank: int,
        hidden_dim: int,
        coupling: Literal["joint", "independent"],
        orthogonalization: Orthogonalization,
    ) -> None:
        super().__init__()
        self.reading = StiefelBasis(num_experts, dim, rank, coupling, orthogonalization)
        self.hidden = HiddenFactors(num_experts, dim, rank, hidden_dim, orthogonalization)
        self.writing = OrthonormalFrames(num_experts, dim, rank, orthogonalization)
        self.bias_ED = nn.Parameter(torch.empty(num_experts, dim).uniform_(-1, 1) / math.sqrt(hidden_dim))

    def routing_bases(self) -> Tensor:
        """The experts' routing bases (E, D, R)."""
        return self.reading()

    def coordinates(self, x_TD: Tensor) -> Tensor:
        """Projections of tokens for the experts (T, E, R)."""
        return torch.einsum("td,edr->ter", x_TD, self.reading())

    def project(self, x_TD: Tensor, context_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projections of tokens, for the experts and for the router, and of contexts, all (T, E, R)."""
        bases_EDR = self.reading()
        flat_DC = bases_EDR.movedim(0, 1).flatten(1)
        blocks = (bases_EDR.shape[0], bases_EDR.shape[2])
        z_TER = (x_TD @ flat_DC).unflatten(1, blocks)
        return z_TER, z_TER, (context_TD @ flat_DC).unflatten(1, blocks)

    @outside_graphs
    def forward(self, coordinates: Tensor, record: RoutingRecord) -> Tensor:
        """Gated sum of the experts' outputs, (T, D)."""
        plan = plan_routing(record, coordinates)
        rows_SR = gather_projections(coordinates, plan)
        rows_SR = self.hidden(rows_SR, plan.sizes_E, torch.zeros_like(self.hidden.second_spectrum_EC))
        rows_SD = slice_products(rows_SR, plan.sizes_E, self.writing(), self.bias_ED)
        return combine(rows_SD, record.gates_BNK.flatten(0, 1), plan)
