"""Every router on a SYNTHETIC mixture of subspaces, where the right division of tokens is known.

    python benchmarks/routers_on_subspaces.py --out subspaces --json docs/results/routers_on_subspaces.json

An image is 32 tokens of three out of eight random subspaces of dimension 4 in 64 dimensions, drawn with
weights that fall from 1 to 0.13. Tokens of one subspace in one image scatter around a prototype, as patches
of one object do, and all carry noise. The target of a token is a nonlinear function of its coordinates in
its subspace, a different function for each. A single layer of eight experts, two per token, learns it by
least squares; the figure is the error relative to predicting the mean. An ERMoE's context is a fixed
attention among the tokens of the image, the softmax of their scaled products.

Reported on fresh images: relative error, Gini coefficient of the load (Soft MoE: of the weight that tokens
give), purity (share of the tokens whose first expert has their subspace as its commonest), normalised
mutual information of first expert and true subspace. The Gini coefficient of the true subspaces stands in
the title: a router that separates them perfectly, one expert each, has that load and no flatter one.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import torch
from router_contestants import (
    CONTESTANTS,
    Contestant,
    add_run_options,
    ermoe,
    print_summary,
    run_all,
    summarise,
)
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from brainage.files import write_json
from brainage.nn import balancing_loss, make_moe, no_weight_decay_parameters
from brainage.nn.routing import RoutingRecord
from brainage.nn.routing_stats import load_statistics
from brainage.train.schedule import warmup_cosine

SETTINGS: dict[str, Any] = {
    "dim": 64,
    "subspaces": 8,
    "subspace_dim": 4,
    "frequency_ratio": 0.75,
    "per_image": 3,
    "tokens": 32,
    "prototype": 0.7,
    "noise": 0.1,
    "num_experts": 8,
    "top_k": 2,
    "hidden_dim": 8,
    "rank": 8,
    "batch": 16,
    "steps": 600,
    "lr": 3e-3,
}

COSINE, ENERGY = {"scores": "eigenbasis"}, {"scores": "aligned_energy"}
EXTRA = (
    ermoe("ermoe, joint", coupling="joint", **COSINE),
    ermoe("ermoe, independent", coupling="independent", **COSINE),
    ermoe("ermoe, balanced", balancing=0.01, **COSINE),
    ermoe("ermoe, image mean as context", context="image_mean", **COSINE),
    ermoe("ermoe, aligned energy, joint", coupling="joint", **ENERGY),
    ermoe("ermoe, aligned energy, independent", coupling="independent", **ENERGY),
    ermoe("ermoe, aligned energy, image mean as context", context="image_mean", **ENERGY),
    ermoe("ermoe, aligned energy, not orthogonal", orthogonalization="none", **ENERGY),
)


class Mixture:
    """Images of tokens from subspaces with known labels. All random draws come from the seed."""

    def __init__(self, seed: int, settings: dict[str, Any]) -> None:
        self.settings = settings
        draw = torch.Generator().manual_seed(1_000 + seed)
        groups, dim, rank = settings["subspaces"], settings["dim"], settings["subspace_dim"]
        self.bases_GDR = torch.linalg.qr(torch.randn(groups, dim, rank, generator=draw)).Q
        self.inner_GRH = torch.randn(groups, rank, 16, generator=draw) * (2 / math.sqrt(rank))
        self.outer_GHD = torch.randn(groups, 16, dim, generator=draw) / math.sqrt(16)
        self.frequency_G = settings["frequency_ratio"] ** torch.arange(groups)
        self.draw = draw

    def images(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and targets (B, N, D), each of unit mean square per channel or nearly, labels (B, N)."""
        s, draw = self.settings, self.draw
        rank, tokens = s["subspace_dim"], s["tokens"]
        of_image_BK = torch.multinomial(self.frequency_G.expand(count, -1), s["per_image"], generator=draw)
        which_BN = torch.randint(s["per_image"], (count, tokens), generator=draw)
        label_BN = of_image_BK.gather(1, which_BN)
        prototype_BKR = torch.randn(count, s["per_image"], rank, generator=draw)
        own_BNR = torch.randn(count, tokens, rank, generator=draw)
        shared_BNR = prototype_BKR.gather(1, which_BN.unsqueeze(-1).expand(-1, -1, rank))
        p = s["prototype"]
        code_BNR = math.sqrt(p) * shared_BNR + math.sqrt(1 - p) * own_BNR
        x_BND = torch.einsum("bnr,bndr->bnd", code_BNR, self.bases_GDR[label_BN])
        x_BND = x_BND * math.sqrt(s["dim"] / rank)
        x_BND = x_BND + s["noise"] * torch.randn(x_BND.shape, generator=draw)
        hidden_BNH = torch.einsum("bnr,bnrh->bnh", code_BNR, self.inner_GRH[label_BN]).tanh()
        y_BND = torch.einsum("bnh,bnhd->bnd", hidden_BNH, self.outer_GHD[label_BN])
        # What a layer norm without parameters would do to tokens of any length.
        return torch.nn.functional.layer_norm(x_BND, x_BND.shape[-1:]), y_BND, label_BN


def context_of(x_BND: Tensor, kind: str) -> Tensor:
    """Contexts (B, N, D): fixed attention among the tokens of an image, or the image's mean."""
    if kind == "image_mean":
        return x_BND.mean(dim=1, keepdim=True).expand_as(x_BND)
    weights_BNN = (x_BND @ x_BND.mT / (2 * math.sqrt(x_BND.shape[-1]))).softmax(dim=-1)
    return weights_BNN @ x_BND


def layer_of(contestant: Contestant) -> Any:
    """The contestant's layer; Soft MoE gets as many slots as the others compute pairs."""
    s = SETTINGS
    settings = {name: s[name] for name in ("dim", "num_experts", "hidden_dim")} | dict(contestant.moe)
    settings |= contestant.rank(s["rank"], s["num_experts"])
    if contestant.router == "soft":
        return make_moe(slots_per_expert=s["tokens"] * s["top_k"] // s["num_experts"], **settings)
    return make_moe(top_k=s["top_k"], **settings)


def run(contestant: Contestant, seed: int) -> dict[str, Any]:
    """Train one layer and measure it on fresh images."""
    s = SETTINGS
    torch.manual_seed(seed)
    mixture = Mixture(seed, s)
    layer = layer_of(contestant)
    exempt = no_weight_decay_parameters(layer)
    groups = [
        {"params": [p for n, p in layer.named_parameters() if n not in exempt], "weight_decay": 0.01},
        {"params": [p for n, p in layer.named_parameters() if n in exempt], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=s["lr"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(s["steps"], 0.05))
    start = time.perf_counter()
    for _ in range(s["steps"]):
        x_BND, y_BND, _ = mixture.images(s["batch"])
        out_BND, record = layer(x_BND, context_of(x_BND, contestant.context), return_routing=True)
        loss = (out_BND - y_BND).square().mean() / y_BND.square().mean()
        if contestant.balancing:
            loss = loss + contestant.balancing * balancing_loss(record)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - start
    return {**measure(layer, mixture, contestant), "seconds": seconds}


@torch.no_grad()
def measure(layer: Any, mixture: Mixture, contestant: Contestant) -> dict[str, Any]:
    """Figures on 256 fresh images."""
    layer.eval()
    x_BND, y_BND, label_BN = mixture.images(256)
    out_BND, record = layer(x_BND, context_of(x_BND, contestant.context), return_routing=True)
    figures: dict[str, Any] = {
        "error": float((out_BND - y_BND).square().mean() / y_BND.square().mean()),
        "data_gini": load_statistics(torch.bincount(label_BN.flatten(), minlength=SETTINGS["subspaces"]))[
            "gini"
        ],
        "parameters": sum(p.numel() for p in layer.parameters()),
    }
    if record.num_experts == 1:
        return figures
    first = record.experts_BNK[..., 0].flatten()
    table_EG = torch.zeros(record.num_experts, SETTINGS["subspaces"])
    table_EG.index_put_((first, label_BN.flatten()), torch.ones(len(first)), accumulate=True)
    load_E = record.gates_BNE.flatten(0, 1).sum(0) if contestant.router == "soft" else used(record)
    best2 = record.scores_BNE.topk(2, dim=-1).values
    return figures | {
        "gini": load_statistics(load_E)["gini"],
        "first_gini": load_statistics(table_EG.sum(1))["gini"],
        "purity": float(table_EG.amax(1).sum() / table_EG.sum()),
        "nmi": float(normalized_mutual_info_score(label_BN.flatten().numpy(), first.numpy())),
        "below_threshold": float(record.fallback_BN.double().mean()),
        "score_spread": float(record.scores_BNE.std(dim=-1).mean()),
        "score_margin": float((best2[..., 0] - best2[..., 1]).mean()),
        "first_by_subspace": table_EG.long().tolist(),
    }


def used(record: RoutingRecord) -> Tensor:
    """Pairs of token and slot by expert."""
    return torch.bincount(record.experts_BNK[record.used_BNK], minlength=record.num_experts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_options(parser)
    options = parser.parse_args()
    rows = run_all((*CONTESTANTS, *EXTRA), options, SETTINGS, run)
    figures = {
        "error": ("relative error", ".3f"),
        "gini": ("load Gini", ".2f"),
        "purity": ("purity", ".2f"),
        "nmi": ("mutual information", ".2f"),
        "below_threshold": ("no eligible expert", ".2f"),
        "seconds": ("seconds", ".0f"),
    }
    summary = summarise(
        rows, [*figures, "first_gini", "score_spread", "score_margin", "data_gini", "parameters"]
    )
    truth = sum(row["data_gini"] for row in rows) / len(rows)
    title = f"SYNTHETIC mixture of subspaces (Gini of the true subspaces {truth:.2f}); mean (range of seeds)"
    print_summary(summary, figures, title)
    if options.json:
        write_json(options.json, {"synthetic": True, "settings": SETTINGS, "summary": summary})


if __name__ == "__main__":
    main()
