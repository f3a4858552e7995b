"""Learning-rate schedules, as factors of the highest rate."""

from __future__ import annotations

import math
from collections.abc import Callable


def warmup_cosine(total_steps: int, warmup: float) -> Callable[[int], float]:
    """Linear rise over the share ``warmup`` of the steps, then a half cosine down to 0."""
    rise = max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total_steps - rise))))

    return factor
