"""A scan whose regions can be taken away one by one, and what other methods say each of them gave.

The model sees nothing of a scan but the tissue histograms of its tokens. A region is taken away by moving the
histograms of its tokens, by its share of each, to those of the average training scan, which the model's file
carries. So "all taken away" is the average training scan, from which contributions are counted as well.

N tokens, R regions with what the atlas leaves out, F histogram bins.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brainage.anatomy.regions import divide_tokens
from brainage.errors import ConfigError
from brainage.models.weights import TrainedModel

_BATCH = 16
# Where the curve of a piecewise smooth network is sampled between the two scans.
INTEGRATION_STEPS = 10
_NOISE = 0.1  # of the amount of each region, where gradients are averaged


class RegionGates:
    """The predicted age of one scan by how much of each region is there.

    Args:
        trained: the model.
        volume: normalised volume (80, 96, 80) on the model grid.
    """

    def __init__(self, trained: TrainedModel, volume: np.ndarray) -> None:
        self.model = trained.model
        values = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))[None, None]
        with torch.no_grad():
            self.histogram_NF = self.model.histograms(values)[0]
        self.average_NF = trained.typical_mean_NF.float()
        division_NR = divide_tokens(trained.region_share_NR.numpy())
        self.division_NR = torch.from_numpy(division_NR.astype(np.float32))

    def __call__(self, amount_BR: Tensor) -> Tensor:
        """Ages (B,), years; an amount of 1 leaves a region as it is and 0 takes it away."""
        kept_BN1 = (amount_BR.float() @ self.division_NR.T)[..., None]
        histograms_BNF = self.average_NF + kept_BN1 * (self.histogram_NF - self.average_NF)
        return self.model.from_histograms(histograms_BNF).age_B

    @torch.no_grad()
    def ages(self, amount_BR: np.ndarray) -> np.ndarray:
        """The same for many amounts, in batches and without gradients."""
        amounts = torch.from_numpy(np.asarray(amount_BR, dtype=np.float32)).split(_BATCH)
        return torch.cat([self(part) for part in amounts]).double().numpy()

    @torch.no_grad()
    def contributions(self) -> np.ndarray:
        """Years (R,) of the additive head, as in the region table; they sum to the age less the baseline."""
        output = self.model.from_histograms(self.histogram_NF[None])
        return (output.contributions_BN[0].double() @ self.division_NR.double()).numpy()

    @property
    def full(self) -> Tensor:
        """Amounts (1, R) of the scan as it is."""
        return torch.ones(1, self.division_NR.shape[1])


@dataclass(frozen=True, eq=False)
class Attribution:
    """Years (R,) that a method gives to each region, and the seconds that it took."""

    years_R: np.ndarray
    seconds: float


def attribute(gates: RegionGates, seed: int = 0) -> dict[str, Attribution]:
    """What the additive head and three other methods say each region gave; the others from captum.

    The others get about the same number of passes, as many as taking away each region once needs. A pass
    back is counted as two.

    Raises:
        ConfigError: captum is not installed.
    """
    try:
        from captum.attr import FeatureAblation, IntegratedGradients, NoiseTunnel, Saliency
    except ImportError as error:
        rule = "must be installed for the comparison: pip install 'brainage[faithfulness]'"
        raise ConfigError("captum", "not installed", rule) from error
    passes = gates.full.shape[1]
    samples = max(1, round(passes / 3))
    nothing = torch.zeros_like(gates.full)

    def gradient() -> Tensor:
        torch.manual_seed(seed)
        tunnel = NoiseTunnel(Saliency(gates))
        return tunnel.attribute(
            gates.full, nt_type="smoothgrad", nt_samples=samples, stdevs=_NOISE, abs=False
        )

    def integrated() -> Tensor:
        return IntegratedGradients(gates).attribute(
            gates.full, nothing, n_steps=min(samples, 2 * INTEGRATION_STEPS)
        )

    def occlusion() -> Tensor:
        with torch.no_grad():
            return FeatureAblation(gates).attribute(gates.full, nothing, perturbations_per_eval=_BATCH)

    return {
        "contribution": _timed(gates.contributions),
        "gradient": _timed(lambda: _years(gradient())),
        "integrated gradients": _timed(lambda: _years(integrated())),
        "occlusion": _timed(lambda: _years(occlusion())),
    }


def _years(amounts_1R: Tensor) -> np.ndarray:
    return amounts_1R.detach()[0].double().numpy()


def _timed(method: Callable[[], np.ndarray]) -> Attribution:
    start = time.perf_counter()
    years_R = method()
    return Attribution(years_R, time.perf_counter() - start)
