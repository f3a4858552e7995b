import pandas as pd
import pytest

from brainage.evaluate.coverage import interval_coverage, wilson_interval


def scans(rows):
    table = pd.DataFrame(rows, columns=["age", "interval_low", "interval_high"]).astype(float)
    table["interval_level"] = 0.9
    return table


def test_counts_overall_and_by_band():
    table = scans([(25, 20, 30), (26, 27, 40), (61, 50, 70), (62, 62, 80), (63, None, None)])
    bands = pd.Series(["20-29", "20-29", "60-69", "60-69", "60-69"])
    found = interval_coverage(table, bands)
    assert (found["level"], found["n_scans"], found["coverage"]) == (0.9, 4, 0.75)
    assert found["mean_width"] == pytest.approx((10 + 13 + 20 + 18) / 4)
    assert [(band["group"], band["n_scans"], band["coverage"]) for band in found["by_age_band"]] == [
        ("20-29", 2, 0.5),
        ("60-69", 2, 1.0),
    ]


def test_without_intervals_there_is_no_coverage():
    assert interval_coverage(pd.DataFrame({"age": [30.0]}), pd.Series(["30-39"])) is None
    assert interval_coverage(scans([(30, None, None)]), pd.Series(["30-39"])) is None


def test_wilson_by_hand():
    # 9 of 10: (0.9 + z^2/20 +- z sqrt(0.09/10 + z^2/400)) / (1 + z^2/10), z = 1.96.
    assert wilson_interval(9, 10) == pytest.approx((0.596, 0.982), abs=1e-3)
    assert wilson_interval(5, 5)[1] == 1
