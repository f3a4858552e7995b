"""Preprocessed scans with the ages of their subjects, held in memory."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class AgedScan:
    """One scan to learn from or to be measured on.

    Attributes:
        participant_id, session_id: BIDS ids with their prefixes; ``session_id`` may be empty.
        age: chronological age, years.
        volume: normalised volume (1, 80, 96, 80) on the model grid, half precision to save memory.
    """

    participant_id: str
    session_id: str
    age: float
    volume: Tensor
