"""The table of a comparison: figures and paired intervals on numbers worked by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from brainage.evaluate.benchmark import compare, paired_difference
from brainage.evaluate.benchmark_text import benchmark_markdown

FIGURES = {"cohort": "c", "parameters": 10, "flops": 2e6, "seconds_per_scan": 0.01, "gini": None}
FIGURES |= {"epochs": 3, "seconds": 5.0}


def runs(
    name: str, gaps_by_seed: dict[int, list[float]], fold_of: tuple[int, ...] = (0, 0, 1, 1)
) -> pd.DataFrame:
    """Subjects of 20, 40, 60 and 80 years with these gaps; subjects 0 and 1 in fold 0."""
    rows = []
    for seed, gaps in gaps_by_seed.items():
        for number, (gap, fold) in enumerate(zip(gaps, fold_of, strict=True)):
            age = 20.0 * (number + 1)
            ids = {"participant_id": f"sub-{number}", "session_id": ""}
            rows.append(
                {
                    "contestant": name,
                    "seed": seed,
                    "fold": fold,
                    "age": age,
                    "predicted": age + gap,
                    **ids,
                    **FIGURES,
                }
            )
    return pd.DataFrame(rows)


def bootstrap_by_hand(values: list[float]) -> tuple[float, float]:
    """The interval over all n^n resamples, which ten thousand random ones come near to."""
    means = [np.mean(draw) for draw in itertools.product(values, repeat=len(values))]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def test_paired_difference_by_hand() -> None:
    one = runs("a", {0: [4, -4, 2, 6], 1: [2, -2, 2, 6]})  # mean absolute gaps 3, 3, 2, 6
    other = runs("b", {0: [1, -1, 4, 2], 1: [1, -3, 4, 2]})  # 1, 2, 4, 2
    found = paired_difference(one, other)
    # Differences 2, 1, -2, 4.
    assert found["years"] == pytest.approx(1.25)
    assert found["ci95"] == pytest.approx(bootstrap_by_hand([2, 1, -2, 4]), abs=0.26)
    # The interval is of the differences: that of unpaired errors would be the same for equal contestants.
    assert paired_difference(one, one) == {"years": 0.0, "ci95": [0.0, 0.0]}


def test_only_seeds_that_both_have_are_paired() -> None:
    one = runs("a", {0: [1, 1, 1, 1], 1: [1, 1, 1, 1], 2: [99, 99, 99, 99]})
    other = runs("b", {0: [2, 2, 2, 2], 1: [2, 2, 2, 2]})
    assert paired_difference(one, other)["years"] == pytest.approx(-1)
    # A closed form has a single seed, which is no partner of a network's.
    assert paired_difference(one, runs("c", {0: [0, 0, 0, 0]}))["years"] == pytest.approx(101 / 3)


def test_different_scans_are_no_pair() -> None:
    with pytest.raises(ValueError, match="different scans"):
        paired_difference(runs("a", {0: [1] * 4}), runs("b", {0: [1] * 4}).iloc[:3])


def test_figures_and_claim() -> None:
    frame = pd.concat(
        [
            runs("ours", {0: [3, -3, 3, -3], 1: [5, -5, 5, -5]}),
            runs("near", {0: [5, -5, 5, -5], 1: [5, -5, 5, -5]}),
            runs("far", {0: [9, -9, 9, -9]}),
            runs("begun", {0: [1, 1, 1, 1]}).iloc[:2],
        ]
    )
    labels = {"far": "Far", "ours": "Ours", "near": "Near", "begun": "Begun", "never": "Never"}
    result = compare(frame, labels, 2, "ours", 0.07, resamples=500)
    rows = {row["contestant"]: row for row in result["contestants"]}
    assert rows["ours"]["mae"] == pytest.approx(4)
    assert rows["ours"]["mae_by_seed"] == pytest.approx([3, 5])
    assert rows["near"]["difference"]["years"] == pytest.approx(1)
    assert rows["begun"]["seeds"] == []
    assert rows["begun"]["unfinished_runs"] == 1
    assert rows["never"]["seeds"] == []
    claim = result["claim"]
    assert claim["runner_up"] == "near"
    assert claim["reduction"] == pytest.approx(1 - 4 / 5)
    assert claim["margin_years"] == pytest.approx(4 - 0.93 * 5)
    assert claim["holds"]
    assert claim["beyond_chance"]
    text = benchmark_markdown(result)
    assert "holds here" in text
    assert text.index("| Ours |") < text.index("| Near |") < text.index("| Far |")
    assert "Begun (1 runs)" in text


def test_a_claim_that_does_not_hold_is_said_to_be_so() -> None:
    frame = pd.concat([runs("ours", {0: [4, 4, 4, 4]}), runs("near", {0: [4.1, 4.1, 4.1, 4.1]})])
    result = compare(frame, {"ours": "Ours", "near": "Near"}, 2, "ours", 0.07, resamples=200)
    assert not result["claim"]["holds"]
    assert "does not hold" in benchmark_markdown(result)


def test_nothing_has_run() -> None:
    result = compare(pd.DataFrame(), {"ours": "Ours"}, 5, "ours", 0.07)
    assert result["claim"] is None
    assert "Ours (0 runs)" in benchmark_markdown(result)
