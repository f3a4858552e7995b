"""Whether the regions of a scan look old and young beside one another as they do in the training scans.

Another scanner moves some regions' ages up and others' down, which neither the whole brain's age nor its
tissue alone gives away. The regions' own ages, as deviations from healthy people of the predicted age, are
compared with those of the calibration subjects by their Mahalanobis distance.

C calibration subjects, R regions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from sklearn.covariance import LedoitWolf

from brainage.models.weights import TrainedModel
from brainage.predict.reference import FEWEST, AgeReference, fit_reference

_LEVEL = 0.975  # of healthy people of the training scanner, held out, who stay below the limit
_FOLDS = 5
_FEWEST = 3 * FEWEST  # subjects; with fewer the limit, an outer quantile, is a guess


@dataclass(frozen=True, eq=False)
class RegionalPattern:
    """How the regions' ages deviate together in healthy people of the training scanner.

    Attributes:
        informative_R: the regions that are looked at.
        references: of each of these.
        covariance: of their deviations.
        limit: of :meth:`distance`, which 97.5 % of held-out calibration subjects stay below.
    """

    informative_R: np.ndarray
    references: tuple[AgeReference, ...]
    covariance: LedoitWolf
    limit: float

    def distance(self, looks_R: np.ndarray, age: float) -> float:
        """Root mean square deviation, 1 in healthy people, of regions that look ``looks_R`` years old.

        Args:
            looks_R: years.
            age: predicted, years. Beyond the calibration subjects' ages, the nearest of these.
        """
        looks = looks_R[None, self.informative_R]
        return float(_distances(self.covariance, _deviations(self.references, looks, np.array([age])))[0])


@lru_cache(maxsize=1)
def regional_pattern(trained: TrainedModel) -> RegionalPattern | None:
    """Of the model's calibration subjects; None where they are too few or the regions' ages not known."""
    regional, residuals_C = trained.regional, trained.residuals_C.double().numpy()
    if regional is None or len(regional.ages_C) != len(residuals_C):
        return None
    informative_R = regional.informative_R
    if len(residuals_C) < _FEWEST or np.ptp(regional.ages_C) == 0 or not informative_R.any():
        return None
    ages_C, looks_CR = regional.ages_C, regional.looks_CR[:, informative_R]
    predicted_C = ages_C + residuals_C
    rank_C = np.argsort(np.argsort(ages_C, kind="stable"), kind="stable")
    distance_C = np.zeros(len(ages_C))
    for fold in range(_FOLDS):
        held_out = rank_C % _FOLDS == fold
        references, covariance = _fit(ages_C[~held_out], looks_CR[~held_out], predicted_C[~held_out])
        deviations = _deviations(references, looks_CR[held_out], predicted_C[held_out])
        distance_C[held_out] = _distances(covariance, deviations)
    references, covariance = _fit(ages_C, looks_CR, predicted_C)
    return RegionalPattern(informative_R, references, covariance, float(np.quantile(distance_C, _LEVEL)))


def _fit(
    ages_C: np.ndarray, looks_CR: np.ndarray, predicted_C: np.ndarray
) -> tuple[tuple[AgeReference, ...], LedoitWolf]:
    fitted = (fit_reference(ages_C, looks_C) for looks_C in looks_CR.T)
    references = tuple(reference for reference in fitted if reference is not None)
    return references, LedoitWolf().fit(_deviations(references, looks_CR, predicted_C))


def _deviations(
    references: tuple[AgeReference, ...], looks_CR: np.ndarray, predicted_C: np.ndarray
) -> np.ndarray:
    """(C, R), in standard deviations of healthy people of the predicted age."""
    youngest, oldest = references[0].age_range
    healthy_CR2 = np.array(
        [[reference.at(age) for reference in references] for age in np.clip(predicted_C, youngest, oldest)]
    )
    return (looks_CR - healthy_CR2[..., 0]) / healthy_CR2[..., 1]


def _distances(covariance: LedoitWolf, deviations_CR: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(covariance.mahalanobis(deviations_CR), 0) / deviations_CR.shape[1])
