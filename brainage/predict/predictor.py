"""From a normalised volume to an age, its interval and what each token gave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
import torch

from brainage.evaluate.conformal import AgeIntervals, conformal_quantile, fit_intervals
from brainage.models.brain_age import scan_distance, token_distances
from brainage.models.weights import TrainedModel
from brainage.nn import RoutingRecord
from brainage.predict.regional_age import regional_ages

LEVEL = 0.9  # of the prediction intervals


@dataclass(frozen=True, eq=False)
class Prediction:
    """One scan, N tokens, E experts, L mixture blocks.

    Attributes:
        age: years.
        interval: conformal interval of ``LEVEL`` in years, or None for a model that was not calibrated.
        baseline: years; ``baseline + contributions_N.sum() == age``.
        contributions_N: years.
        gates_LNE: share of each expert in each token; rows sum to 1, or to 0 for a token that passed through
            the residual.
        alignment_LN: cosine between token and context in the basis of the token's first expert.
        unusual_N: root mean square z-scores of the tokens' tissue histograms against the training scans.
        regional_R: the age that each of the atlas's regions looks by itself, years; see
            :func:`~brainage.predict.regional_age.regional_ages`.
    """

    age: float
    interval: tuple[float, float] | None
    baseline: float
    contributions_N: np.ndarray
    gates_LNE: np.ndarray
    alignment_LN: np.ndarray
    unusual_N: np.ndarray
    regional_R: np.ndarray | None = None

    @property
    def gates_NE(self) -> np.ndarray:
        """Share of each expert in each token, averaged over the mixture blocks."""
        return self.gates_LNE.mean(0)

    @property
    def alignment_N(self) -> np.ndarray:
        """Alignment of each token, averaged over the mixture blocks."""
        return self.alignment_LN.mean(0)

    @property
    def unusual(self) -> float:
        """Root mean square z-score of the whole scan's tissue histograms."""
        return float(scan_distance(torch.from_numpy(self.unusual_N)))

    @property
    def dominant_N(self) -> np.ndarray:
        """Index of the expert with the largest share over all blocks; -1 where none took the token."""
        return dominant(self.gates_NE)


def dominant(gates_NE: np.ndarray) -> np.ndarray:
    """Index (N,) of the expert with the largest share; -1 where no expert took the token."""
    return np.where(gates_NE.sum(1) > 0, gates_NE.argmax(1), -1)


@torch.no_grad()
def predict_scan(trained: TrainedModel, volume: np.ndarray) -> Prediction:
    """Predict from a normalised volume (80, 96, 80) on the model grid."""
    model = trained.model
    device = model.index_N.device
    volume_B1XYZ = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))[None, None].to(device)
    histograms_BNF = model.histograms(volume_B1XYZ)
    output = model.from_histograms(histograms_BNF)
    age = float(output.age_B[0])
    half = interval_half_width(trained, age)
    return Prediction(
        age=age,
        interval=None if half is None else (age - half, age + half),
        baseline=output.baseline,
        contributions_N=output.contributions_BN[0].cpu().numpy(),
        gates_LNE=np.stack([record.gates_BNE[0].float().cpu().numpy() for record in output.routing]),
        alignment_LN=np.stack([_alignment(record) for record in output.routing]),
        unusual_N=_unusual(trained, histograms_BNF[0].cpu()),
        regional_R=regional_ages(trained, volume),
    )


def interval_half_width(trained: TrainedModel, age: float, level: float = LEVEL) -> float | None:
    """Half-width of the conformal interval about a predicted age, years.

    It varies with the predicted age where the model knows the calibration subjects' ages, and is one for all
    where it does not. None when these subjects are too few to promise the level.
    """
    residuals_C = trained.residuals_C.double().numpy()
    ages_C = trained.reference_ages_C
    if ages_C is None or len(ages_C) != len(residuals_C):
        return conformal_quantile(np.abs(residuals_C), level)
    intervals = _intervals(trained, level)
    return None if intervals is None else float(intervals.half_width(age))


@lru_cache(maxsize=2)  # seconds for thousands of calibration subjects, and the same for every scan
def _intervals(trained: TrainedModel, level: float) -> AgeIntervals | None:
    residuals_C = trained.residuals_C.double().numpy()
    ages_C = cast(torch.Tensor, trained.reference_ages_C).double().numpy()
    return fit_intervals(ages_C + residuals_C, residuals_C, level)


def _alignment(record: RoutingRecord) -> np.ndarray:
    first_N1 = record.experts_BNK[0, :, :1]
    return record.scores_BNE[0].gather(1, first_N1).squeeze(1).float().cpu().numpy()


def _unusual(trained: TrainedModel, histograms_NF: torch.Tensor) -> np.ndarray:
    return token_distances(histograms_NF, trained.typical_mean_NF, trained.typical_std_NF).numpy()
