"""What of a dense network's weights an ERMoE's experts hold, by coupling and rank.

    python benchmarks/moe_loading.py --json docs/results/moe_loading.json

A two-layer network of D = 64 and H = 256 is loaded into four experts (``load_dense_weights``), in float64.
The figures are ``||W - W_e||_F / ||W||_F`` of W1 and W2, the mean over the experts. Two SYNTHETIC networks:
``drawn``, weights as ``nn.Linear`` draws them, whose singular values are nearly even; and ``decaying``, the
same singular vectors with values falling as 1 / r, nearer to those of trained weights. Beside them stands the
error of the best approximation of rank R, below which no expert of rank R can come.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from brainage.files import write_json
from brainage.nn import ERMoE, load_dense_weights

DIM, HIDDEN, EXPERTS = 64, 256, 4
CASES = (
    ("shared", 16),
    *(("independent", rank) for rank in (4, 8, 16, 32, 48, 63)),
    *(("joint", rank) for rank in (4, 8, 16)),
)


def weights(spectrum: str) -> tuple[Tensor, Tensor]:
    """W1 (H, D) and W2 (D, H)."""
    matrices = [torch.nn.Linear(DIM, HIDDEN).weight, torch.nn.Linear(HIDDEN, DIM).weight]
    if spectrum == "drawn":
        return tuple(matrix.detach().double() for matrix in matrices)
    parts = [torch.linalg.svd(matrix.detach().double(), full_matrices=False) for matrix in matrices]
    values = 1 / torch.arange(1, DIM + 1, dtype=torch.float64)
    return tuple((left * values) @ right_t for left, _, right_t in parts)


def best_of_rank(matrix: Tensor, rank: int) -> float:
    values = torch.linalg.svdvals(matrix)
    return float((values[rank:].square().sum() / values.square().sum()).sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    for spectrum in ("drawn", "decaying"):
        first, second = weights(spectrum)
        for coupling, rank in CASES:
            layer = ERMoE(DIM, EXPERTS, rank, HIDDEN, coupling=coupling).double()
            error = load_dense_weights(layer, first, first.new_zeros(HIDDEN), second, second.new_zeros(DIM))
            held = DIM if coupling == "shared" else rank
            rows.append(
                {
                    "weights": spectrum,
                    "coupling": coupling,
                    "rank": rank,
                    "error_W1": float(error.first_E.mean()),
                    "error_W2": float(error.second_E.mean()),
                    "best_of_rank_W1": best_of_rank(first, held),
                    "best_of_rank_W2": best_of_rank(second, held),
                }
            )
    table = Table(*rows[0], title=f"SYNTHETIC weights, D = {DIM}, H = {HIDDEN}, E = {EXPERTS}")
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=120, highlight=False).print(table)
    if arguments.json:
        write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
