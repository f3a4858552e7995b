"""Which classes are taken for which, and by which experts: tables and a picture of a confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from brainage.files import replacing

MOST_CLASSES = 50
"""Of more the names could not be read."""


def save_confusion(folder: Path, classes: Sequence[Mapping[str, Any]], confusion_CC: np.ndarray) -> None:
    """Write ``classes.csv``, ``confusion.csv`` and, for at most 50 classes, ``confusion.png``.

    Args:
        folder: to write to.
        classes: a row for each, as :func:`brainage.predict.images.evaluate_classifier` returns them.
        confusion_CC: images of each class (rows) by the class that they were taken for.
    """
    names = [row["class"] for row in classes]
    by_class = pd.DataFrame(classes)
    matrix = pd.DataFrame(confusion_CC, index=pd.Index(names, name="class"), columns=names)
    with replacing(folder / "classes.csv") as partial:
        by_class.to_csv(partial, index=False, float_format="%.6g")
    with replacing(folder / "confusion.csv") as partial:
        matrix.to_csv(partial)
    if len(names) <= MOST_CLASSES:
        with replacing(folder / "confusion.png") as partial:
            confusion_figure(names, confusion_CC).savefig(partial, format="png", dpi=130)


def save_experts_by_class(
    path: Path, classes: Sequence[Mapping[str, Any]], layers: Sequence[Mapping[str, Any]]
) -> None:
    """Write a table with a row for each block and class: the share of its gates that each expert takes.

    Args:
        path: of the CSV.
        classes: a row for each.
        layers: of the blocks with a mixture, with ``block`` and ``by_class`` (C, E).
    """
    tables = []
    for layer in layers:
        shares_CE = np.asarray(layer["by_class"])
        table = pd.DataFrame(shares_CE, columns=[f"expert_{e}" for e in range(1, shares_CE.shape[1] + 1)])
        table.insert(0, "class", [row["class"] for row in classes])
        table.insert(0, "block", layer["block"])
        tables.append(table)
    with replacing(path) as partial:
        pd.concat(tables).to_csv(partial, index=False, float_format="%.4f")


def confusion_figure(names: Sequence[str], confusion_CC: np.ndarray) -> Figure:
    """A square for each two classes: the share of the row's images that were taken for the column's class."""
    counts_CC = np.asarray(confusion_CC, dtype=np.float64)
    share_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    longest = max(map(len, names))
    edge = 1.8 + 0.19 * len(names) + 0.07 * longest
    figure = Figure(figsize=(max(edge + 0.8, 4.5), max(edge, 3.7)), layout="constrained")
    axes = figure.add_subplot()
    # A light scale, so that the few mistakes of a good model can be seen too.
    shown = axes.imshow(share_CC, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(shown, ax=axes, shrink=0.7)
    bar.set_label("share of the true class's images", fontsize=8.5)
    bar.ax.tick_params(labelsize=7.5)
    places = np.arange(len(names))
    axes.set_xticks(places, names, rotation=90, fontsize=7)
    axes.set_yticks(places, names, fontsize=7)
    axes.set_xlabel("taken for", fontsize=9)
    axes.set_ylabel("true class", fontsize=9)
    if len(names) <= 12:
        for row, column in np.argwhere(counts_CC):
            colour = "white" if share_CC[row, column] > 0.55 else "black"
            count = f"{counts_CC[row, column]:.0f}"
            axes.text(column, row, count, ha="center", va="center", fontsize=7.5, color=colour)
    return figure
