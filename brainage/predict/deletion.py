"""Deletion and insertion: does taking away the regions that a map names first change the age first?

Petsiuk et al. 2018 (RISE, arXiv 1806.07421), for a regression: regions are ordered by how much of the
difference from the average training scan a map gives to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from brainage.predict.region_gates import RegionGates


@dataclass(frozen=True, eq=False)
class DeletionCurves:
    """Predicted ages (R + 1,) after 0, 1, ... regions, years, as the share of the way that is left or gone.

    Attributes:
        deletion: from the scan (1) to the average training scan (0).
        insertion: from the average training scan (0) to the scan (1).
    """

    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def gain(self) -> float:
        """Area between insertion and deletion, in [-1, 1] for monotone curves; 0 for an order by chance."""
        return float(np.trapezoid(self.insertion - self.deletion) / (len(self.deletion) - 1))


def deletion_curves(gates: RegionGates, years_R: np.ndarray) -> DeletionCurves | None:
    """Curves in the order of a map; None for a scan that the model takes for the average one.

    Args:
        gates: the scan.
        years_R: what a map gives to each region.
    """
    count = len(years_R)
    whole, average = gates.ages(np.stack([np.ones(count), np.zeros(count)]))
    way = whole - average
    if abs(way) < LEAST_WAY:
        return None
    order_R = np.argsort(-np.sign(way) * years_R, kind="stable")
    gone = np.zeros((count + 1, count))
    for place, region in enumerate(order_R, 1):
        gone[place:, region] = 1
    ages = gates.ages(np.concatenate([1 - gone, gone]))
    shares = (ages - average) / way
    return DeletionCurves(shares[: count + 1], shares[count + 1 :])


LEAST_WAY = 5.0  # years between a scan and the average one, so that shares of the way mean something


def random_curves(gates: RegionGates, orders: int, seed: int = 0) -> list[DeletionCurves]:
    """The same for ``orders`` random orders of the regions."""
    rng = np.random.default_rng(seed)
    count = gates.full.shape[1]
    found = [deletion_curves(gates, rng.permutation(count).astype(float)) for _ in range(orders)]
    return [curves for curves in found if curves is not None]


def summarise(curves: Mapping[str, list[DeletionCurves]]) -> dict[str, dict[str, object]]:
    """Mean curves and gains of each method with the standard error over its curves, ready for JSON."""
    content: dict[str, dict[str, object]] = {}
    for method, found in curves.items():
        if not found:
            continue
        gains = np.array([one.gain for one in found])
        content[method] = {
            "curves": len(found),
            "gain": round(float(gains.mean()), 4),
            "gain_se": round(float(gains.std(ddof=1) / np.sqrt(len(gains))), 4) if len(gains) > 1 else None,
            "deletion": np.mean([one.deletion for one in found], axis=0).round(4).tolist(),
            "insertion": np.mean([one.insertion for one in found], axis=0).round(4).tolist(),
        }
    return content
