"""Tables and picture of a confusion matrix."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from brainage.report.confusion import confusion_figure, save_confusion


def rows(names):
    return [{"class": name, "num_images": 4, "top1": 0.5} for name in names]


@pytest.mark.parametrize(("count", "drawn"), [(50, True), (51, False)])
def test_tables_hold_everything_and_many_classes_are_not_drawn(tmp_path, count, drawn):
    confusion = np.random.default_rng(0).integers(0, 9, (count, count))
    names = [f"class, {index}" for index in range(count)]
    save_confusion(tmp_path, rows(names), confusion)
    table = pd.read_csv(tmp_path / "confusion.csv", index_col="class")
    assert list(table.index) == list(table.columns) == names
    assert np.array_equal(table.to_numpy(), confusion)
    assert pd.read_csv(tmp_path / "classes.csv")["class"].tolist() == names
    assert (tmp_path / "confusion.png").exists() == drawn


def test_a_row_is_a_true_class_and_a_class_without_images_stays_empty():
    axes = confusion_figure(["a", "b", "c"], np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])).axes[0]
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares, [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    assert [text.get_text() for text in axes.texts] == ["3", "1", "4"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("taken for", "true class")
