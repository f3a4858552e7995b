"""Which score finds the right expert on SYNTHETIC subspaces when the bases are right already?

    python benchmarks/subspace_scores.py --json docs/results/subspace_scores.json

The images are those of routers_on_subspaces.py. Each of eight experts is given one of the true subspaces as
its basis, nothing is learned, and the figure is the share of tokens whose own expert scores highest (chance:
one in eight). ``prototype`` is the share of a token's variance that it has in common with the other tokens
of its subspace in its image; contexts are attention among the tokens, and the mean of the image. A score that
fails here cannot be mended by learning better bases.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from routers_on_subspaces import SETTINGS, Mixture, context_of

from brainage.files import write_json
from brainage.nn.routers import aligned_energy_scores, eigenbasis_scores

SCORES = {"eigenbasis": eigenbasis_scores, "aligned_energy": aligned_energy_scores}


@torch.no_grad()
def measure(prototype: float, context: str, seed: int) -> dict[str, dict[str, float]]:
    """For each score: share of right first choices, and mean distance of the two best scores."""
    mixture = Mixture(seed, {**SETTINGS, "prototype": prototype})
    x_BND, _, label_BN = mixture.images(256)
    context_BND = context_of(x_BND, context)
    projected = [torch.einsum("bnd,edr->bner", t, mixture.bases_GDR) for t in (x_BND, context_BND)]
    figures = {}
    for name, score in SCORES.items():
        scores_BNE = score(*projected)
        best2 = scores_BNE.topk(2, dim=-1).values
        figures[name] = {
            "right": float((scores_BNE.argmax(dim=-1) == label_BN).double().mean()),
            "margin": float((best2[..., 0] - best2[..., 1]).mean()),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    table = Table(title="SYNTHETIC: share of tokens whose own expert scores highest, given the true bases")
    for heading in ("prototype", "context", *SCORES, *(f"margin, {name}" for name in SCORES)):
        table.add_column(heading)
    rows: list[dict[str, Any]] = []
    for prototype in (0.0, 0.3, 0.7, 0.9):
        for context in ("attention", "image_mean"):
            runs = [measure(prototype, context, seed) for seed in range(options.seeds)]
            row: dict[str, Any] = {"prototype": prototype, "context": context}
            for name in SCORES:
                for figure in ("right", "margin"):
                    values = [run[name][figure] for run in runs]
                    summary = {"mean": statistics.fmean(values), "low": min(values), "high": max(values)}
                    row[f"{name}_{figure}"] = summary
            rows.append(row)
            right = [row[f"{name}_right"] for name in SCORES]
            table.add_row(
                str(prototype),
                context,
                *(f"{v['mean']:.2f} ({v['low']:.2f} to {v['high']:.2f})" for v in right),
                *(f"{row[f'{name}_margin']['mean']:.3f}" for name in SCORES),
            )
    Console(width=140).print(table)
    if options.json:
        write_json(options.json, {"synthetic": True, "seeds": options.seeds, "rows": rows})


if __name__ == "__main__":
    main()
