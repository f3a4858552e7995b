"""Where training starts, and where it ends: the head's weights in closed form, and its zero."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized

import numpy as np
import torch
from lightning.fabric import Fabric
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor

from brainage.data.datasets import AgedScan
from brainage.models.brain_age import BrainAgeModel

# Share of the mean squared length of the features; a third or thrice as much changes no error by 0.1 years.
PENALTY = 0.1


@torch.no_grad()
def linear_probe(
    model: BrainAgeModel, ages: Sequence[float], copies: Iterable[Iterable[Tensor]], fabric: Fabric
) -> None:
    """Set the head to the ridge regression of age on the tokens of the encoder as it stands.

    Before fine-tuning (Kumar et al. 2022, arXiv 2202.10054): an encoder whose head already fits is not first
    torn about by the gradients of a head that does not. Learning from changed copies of the scans beside the
    scans themselves makes the head indifferent to what was changed.

    Args:
        model: whose head is set.
        ages: of the S training scans, years.
        copies: of the training scans: of each copy, the volumes (B, 1, X, Y, Z) batch by batch, in the order
            of ``ages``. The first are the scans as they are.
        fabric: of the model's device.
    """
    num_tokens, dim = model.head.weight_ND.shape
    factor = float(model.scale) / num_tokens
    features = np.concatenate(
        [tokens_BND.flatten(1).numpy() for copy in copies for tokens_BND in _encoded(model, copy, fabric)]
    )
    features *= factor
    centre = features.mean(0, dtype=np.float64).astype(np.float32)
    features -= centre
    gaps = np.asarray(ages) - np.mean(ages)
    # Many more features than scans: solved among the scans.
    gram = (features @ features.T).astype(np.float64)
    ridge = KernelRidge(alpha=PENALTY * np.trace(gram) / len(gram), kernel="precomputed")
    ridge.fit(gram, np.tile(gaps, len(features) // len(gaps)))
    weight_ND = torch.from_numpy(features.T @ ridge.dual_coef_.astype(np.float32)).view(num_tokens, dim)
    mean_ND = torch.from_numpy(centre / factor).view(num_tokens, dim)
    model.head.weight_ND.copy_(weight_ND)
    shift = float((np.mean(ages) - float(model.baseline)) / float(model.scale))
    model.head.bias_N.copy_(shift - (weight_ND * mean_ND).sum(1))


@torch.no_grad()
def centre_contributions(model: BrainAgeModel, volumes: Iterable[Tensor], fabric: Fabric) -> None:
    """Move each token's mean contribution over the scans from the token to the baseline.

    No prediction changes; afterwards a contribution of 0 is that of the average of these scans.
    """
    values = [model.head(tokens_BND) for tokens_BND in _encoded(model, volumes, fabric)]
    mean_N = torch.cat(values).mean(0)
    model.head.bias_N.sub_(mean_N.to(model.head.bias_N.device))
    model.baseline.add_((model.scale * mean_N.mean()).to(model.baseline.device))


def in_order(scans: Sized, batch_size: int) -> list[range]:
    """Indices of the scans, batch by batch."""
    return [range(start, min(start + batch_size, len(scans))) for start in range(0, len(scans), batch_size)]


def volume_batches(scans: Sequence[AgedScan], batch_size: int) -> Iterator[Tensor]:
    """Volumes (B, 1, X, Y, Z) of the scans, batch by batch in their order."""
    for batch in in_order(scans, batch_size):
        yield torch.stack([scans[index].volume.float() for index in batch])


def as_they_are_and_mirrored(scans: Sequence[AgedScan], batch_size: int) -> Iterator[Iterator[Tensor]]:
    """Two copies for :func:`linear_probe`: the scans, and their images mirrored about x = 0."""
    yield volume_batches(scans, batch_size)
    # The model grid is symmetric about x = 0.
    yield (volume_B1XYZ.flip(2) for volume_B1XYZ in volume_batches(scans, batch_size))


def _encoded(model: BrainAgeModel, volumes: Iterable[Tensor], fabric: Fabric) -> Iterator[Tensor]:
    """Tokens (B, N, D) of volumes (B, 1, X, Y, Z), batch by batch, on the CPU."""
    was_training = model.training
    model.eval()
    for volume_B1XYZ in volumes:
        with fabric.autocast():
            tokens_BND, _ = model.encode(fabric.to_device(volume_B1XYZ))
        yield tokens_BND.float().cpu()
    model.train(was_training)
