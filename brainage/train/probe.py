"""Where training starts, and where it ends: the head's weights in closed form, and its zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from lightning.fabric import Fabric
from sklearn.linear_model import Ridge, RidgeCV
from torch import Tensor

from brainage.data.datasets import AgedScan
from brainage.models.brain_age import BrainAgeModel

PENALTIES = np.logspace(-5, 1, 25)


@torch.no_grad()
def linear_probe(model: BrainAgeModel, scans: Sequence[AgedScan], batch_size: int, fabric: Fabric) -> None:
    """Set the head to the ridge regression of age on the tokens of the encoder as it stands.

    Linear probing before fine-tuning (Kumar et al. 2022, arXiv 2202.10054): an encoder whose head already
    fits is not first torn about by the gradients of a head that does not. Every scan counts twice, as it is
    and with its hemispheres exchanged, as in fine-tuning. The penalty is chosen by leave-one-out among
    ``scans``, which are training scans only, without their mirror images, which would give each other away.
    """
    num_tokens, dim = model.head.weight_ND.shape
    factor = float(model.scale) / num_tokens
    as_it_is, mirrored = (
        torch.cat(
            [tokens_BND.flatten(1) for tokens_BND in _encoded(model, scans, batch_size, fabric, mirror)]
        )
        .double()
        .numpy()
        * factor
        for mirror in (False, True)
    )
    centre = (as_it_is.mean(0) + mirrored.mean(0)) / 2
    ages = np.array([scan.age for scan in scans])
    gaps = ages - ages.mean()
    chosen = RidgeCV(PENALTIES, fit_intercept=False).fit(as_it_is - centre, gaps)
    features = np.concatenate([as_it_is, mirrored]) - centre
    ridge = Ridge(2 * chosen.alpha_, fit_intercept=False).fit(features, np.tile(gaps, 2))
    weight_ND = torch.from_numpy(ridge.coef_.astype(np.float32)).view(num_tokens, dim)
    mean_ND = torch.from_numpy(centre / factor).view(num_tokens, dim)
    model.head.weight_ND.copy_(weight_ND)
    shift = float((ages.mean() - float(model.baseline)) / float(model.scale))
    model.head.bias_N.copy_(shift - (weight_ND * mean_ND).sum(1))


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
    model: BrainAgeModel,
    scans: Sequence[AgedScan],
    batch_size: int,
    fabric: Fabric,
    mirror: bool = False,
) -> Iterator[Tensor]:
    """Tokens (B, N, D) of the scans, batch by batch; of ``mirror`` images about the mid-sagittal plane."""
    was_training = model.training
    model.eval()
    for start in range(0, len(scans), batch_size):
        volumes = torch.stack([scan.volume.float() for scan in scans[start : start + batch_size]])
        if mirror:
            # The model grid is symmetric about x = 0.
            volumes = volumes.flip(2)
        with fabric.autocast():
            tokens_BND, _ = model.encode(fabric.to_device(volumes))
        yield tokens_BND.float().cpu()
    model.train(was_training)
