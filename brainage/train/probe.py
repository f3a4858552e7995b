"""Where training starts, and where it ends: the head's weights in closed form, and its zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from lightning.fabric import Fabric
from sklearn.linear_model import RidgeCV
from torch import Tensor

from brainage.data.datasets import AgedScan
from brainage.models.brain_age import BrainAgeModel

PENALTIES = np.logspace(-10, 0, 41)


@torch.no_grad()
def linear_probe(model: BrainAgeModel, scans: Sequence[AgedScan], batch_size: int, fabric: Fabric) -> None:
    """Set the head to the ridge regression of age on the tokens of the encoder as it stands.

    Linear probing before fine-tuning (Kumar et al. 2022, arXiv 2202.10054): an encoder whose head already
    fits is not first torn about by the gradients of a head that does not. The penalty is chosen by
    leave-one-out among ``scans``, which are training scans only.
    """
    hidden = [tokens_BND.flatten(1) for tokens_BND in _encoded(model, scans, batch_size, fabric)]
    num_tokens, dim = model.head.weight_ND.shape
    factor = float(model.scale) / num_tokens
    features = torch.cat(hidden).numpy() * factor
    ages = np.array([scan.age for scan in scans])
    centre = features.mean(0)
    ridge = RidgeCV(PENALTIES, fit_intercept=False).fit(features - centre, ages - float(model.baseline))
    weight_ND = torch.from_numpy(ridge.coef_.astype(np.float32)).view(num_tokens, dim)
    mean_ND = torch.from_numpy(centre / factor).view(num_tokens, dim)
    model.head.weight_ND.copy_(weight_ND)
    model.head.bias_N.copy_(-(weight_ND * mean_ND).sum(1))


@torch.no_grad()
def centre_contributions(
    model: BrainAgeModel, scans: Sequence[AgedScan], batch_size: int, fabric: Fabric
) -> None:
    """Move each token's mean contribution over ``scans`` from the token to the baseline.

    No prediction changes; afterwards a contribution of 0 is that of the average of these scans.
    """
    values = [model.head(tokens_BND) for tokens_BND in _encoded(model, scans, batch_size, fabric)]
    mean_N = torch.cat(values).mean(0)
    model.head.bias_N.sub_(mean_N.to(model.head.bias_N.device))
    model.baseline.add_((model.scale * mean_N.mean()).to(model.baseline.device))


def _encoded(
    model: BrainAgeModel, scans: Sequence[AgedScan], batch_size: int, fabric: Fabric
) -> Iterator[Tensor]:
    was_training = model.training
    model.eval()
    for start in range(0, len(scans), batch_size):
        volumes = torch.stack([scan.volume.float() for scan in scans[start : start + batch_size]])
        with fabric.autocast():
            tokens_BND, _ = model.encode(fabric.to_device(volumes))
        yield tokens_BND.float().cpu()
    model.train(was_training)
