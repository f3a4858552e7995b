"""SFCN, the convolutional network that ERMoE-ba is compared with, and its soft age labels.

Peng, Gong, Beckmann, Vedaldi, Smith 2021, Medical Image Analysis 68:101871 (doi:10.1016/j.media.2020.101871):
blocks of convolution, batch normalisation, pooling and ReLU, each of which halves the volume; a block that
mixes channels only; the mean over what is left of the volume; and probabilities of age bins.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainage.benchmark_config import SfcnRecipe


class Sfcn(nn.Module):
    """Log-probabilities of age bins (B, bins) from volumes (B, 1, X, Y, Z).

    Args:
        recipe: widths and bins. The paper's five blocks suit 1 mm volumes; a volume that was made coarser
            by two gets one block less.
    """

    centres: Tensor

    def __init__(self, recipe: SfcnRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.register_buffer("centres", bin_centres(recipe))
        blocks, before = [], 1
        for width in recipe.channels:
            blocks.append(
                nn.Sequential(
                    nn.Conv3d(before, width, 3, padding=1),
                    nn.BatchNorm3d(width),
                    nn.MaxPool3d(2),
                    nn.ReLU(),
                )
            )
            before = width
        mixing = nn.Sequential(nn.Conv3d(before, recipe.last, 1), nn.BatchNorm3d(recipe.last), nn.ReLU())
        self.features = nn.Sequential(*blocks, mixing)
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool3d(1),
                dropout=nn.Dropout(recipe.dropout),
                bins=nn.Conv3d(recipe.last, len(self.centres), 1),
            )
        )

    def forward(self, volume_B1XYZ: Tensor) -> Tensor:
        """Log-probabilities in float32, whatever the autocast."""
        return F.log_softmax(self.head(self.features(volume_B1XYZ)).flatten(1).float(), dim=1)

    def ages(self, log_probabilities_BC: Tensor) -> Tensor:
        """Expected age (B,), years."""
        return log_probabilities_BC.exp() @ self.centres


def bin_centres(recipe: SfcnRecipe) -> Tensor:
    """Centres of the age bins (bins,), years."""
    bins = round((recipe.oldest - recipe.youngest) / recipe.bin_years)
    return recipe.youngest + recipe.bin_years * (torch.arange(bins) + 0.5)


def soft_labels(age_B: Tensor, centres_C: Tensor, bin_years: float, sigma: float) -> Tensor:
    """Probability (B, bins) of each bin under a normal distribution about the age; rows sum to 1.

    An age beyond the middle of the first or last bin counts as that middle. The tails that lie outside of all
    bins are left out.
    """
    within_B = age_B.clamp(float(centres_C[0]), float(centres_C[-1])).double()
    edges = torch.cat([centres_C - bin_years / 2, centres_C[-1:] + bin_years / 2])
    inside = torch.special.ndtr((edges - within_B[:, None]) / sigma).diff(dim=1)
    return (inside / inside.sum(1, keepdim=True)).float()


def soft_label_loss(log_probabilities_BC: Tensor, labels_BC: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the predicted from the soft labels, mean over the batch."""
    return F.kl_div(log_probabilities_BC, labels_BC, reduction="batchmean")
