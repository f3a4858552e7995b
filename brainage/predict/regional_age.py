"""What each region of a scan looks like by itself, against healthy people.

Kept apart from the contributions: these ages do not sum to anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from brainage.models.weights import TrainedModel
from brainage.predict.reference import AgeReference, fit_reference
from brainage.train.layout import atlas_of

# Background in a region would pass for fluid, which looks old.
LEAST_COVERAGE = 0.98


@dataclass(frozen=True)
class RegionReference:
    """How a region's own age is to be read.

    Attributes:
        error: root mean square out-of-fold error, years.
        healthy: the ages that it looks in healthy people, by their true age; None for too few of them.
    """

    error: float
    healthy: AgeReference | None

    def to_json(self, age: float) -> dict[str, Any]:
        """For ``*_regions.json``, with the age that the region looks."""
        healthy = None if self.healthy is None else self.healthy.to_json()
        return {"age": round(age, 4), "error": round(self.error, 3), "healthy": healthy}


@lru_cache(maxsize=1)
def regional_references(trained: TrainedModel) -> tuple[RegionReference | None, ...] | None:
    """Of each region, None where it errs no less than guessing; None for a model without regional ages."""
    regional = trained.regional
    if regional is None:
        return None
    return tuple(
        RegionReference(float(error), fit_reference(regional.ages_C, looks_C)) if informative else None
        for error, informative, looks_C in zip(
            regional.error_R, regional.informative_R, regional.looks_CR.T, strict=True
        )
    )


def regional_ages(trained: TrainedModel, volume: np.ndarray) -> np.ndarray | None:
    """Ages (R,), years, that the regions of a normalised volume (80, 96, 80) look.

    NaN where a region errs no less than guessing. None for a model without regional ages, and where the
    atlas of its training is not on this machine.
    """
    atlas, references = atlas_of(trained), regional_references(trained)
    if trained.regional is None or references is None or atlas is None:
        return None
    ages_R = trained.regional(volume, atlas.labels, atlas.regions["index"].to_numpy())
    return np.where([reference is not None for reference in references], ages_R, np.nan)
