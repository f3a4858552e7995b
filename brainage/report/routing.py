"""Load of the experts, overlap of their bases and stability of the routing, in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from brainage.files import replacing

_BAR, _EVEN, _DEAD = "#1f5a99", "#444444", "#b3261e"
_LINES = ("#1f5a99", "#a4501a", "#2e7d4f", "#7a4fa3", "#b38600", "#5f6b7a")


def save_routing_figure(path: str | PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a PNG of what ``brainage routing-stats`` found.

    A column for each mixture: the share of the computed pairs of token and expert that each expert took,
    with the even share, above the overlap of every two experts' bases. On the right the stability over the
    saved epochs.

    Args:
        path: of the PNG.
        content: as in ``routing_stats.json``.
    """
    layers = content["layers"]
    names = [name.replace("_", " ") for name in content["experts"]]
    overlaps = any(layer["overlap"] is not None for layer in layers)
    column = 1.3 + 0.09 * max(map(len, names)) + 1.5
    last = 4.6 if content["stability"] else 2.4
    width, height = column * len(layers) + last, 1.6 + 0.2 * len(names) + (3.4 if overlaps else 0)
    figure = Figure(figsize=(width, max(height, 4.0)), layout="constrained")
    halves = figure.subfigures(1, 2, width_ratios=[column * len(layers), last])
    left, right = np.ravel(np.asarray(halves, dtype=object))
    ratios = [1.2 + 0.2 * len(names), 3.2] if overlaps else [1.0]
    grid = left.add_gridspec(len(ratios), len(layers), height_ratios=ratios)
    highest = max(max(layer["share"]) for layer in layers)
    for index, layer in enumerate(layers):
        axes = left.add_subplot(grid[0, index])
        _draw_load(axes, layer, names, highest)
        if layer["overlap"] is not None:
            _draw_overlap(left.add_subplot(grid[1, index]), layer)
    _draw_stability(right.add_subplot(), content["stability"], [layer["block"] for layer in layers])
    inputs = content["inputs"]
    figure.suptitle(
        f"{content['model']} ({content['router']}): routing of {inputs['number']} {inputs['source']}",
        fontsize=12,
    )
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=130)


def _draw_load(axes: Axes, layer: Mapping[str, Any], names: Sequence[str], highest: float) -> None:
    share_E = np.asarray(layer["share"])
    position = np.arange(len(share_E))
    axes.barh(position, share_E, color=_BAR, height=0.72)
    even = 1 / len(share_E)
    axes.axvline(even, color=_EVEN, linestyle="--", linewidth=1)
    for expert in np.flatnonzero(share_E == 0):
        axes.text(0.01 * highest, expert, "no token", color=_DEAD, fontsize=7.5, va="center")
    axes.set_yticks(position, names[: len(share_E)], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.05 * highest)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("share of the load (dashed: even)", fontsize=8.5)
    axes.set_title(f"block {layer['block']}: Gini {layer['gini']:.2f}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_overlap(axes: Axes, layer: Mapping[str, Any]) -> None:
    overlap_EE = np.asarray(layer["overlap"])
    chance = layer["overlap_chance"]
    shown = axes.imshow(overlap_EE, cmap="viridis", vmin=0, vmax=1)
    bar = axes.figure.colorbar(shown, ax=axes, shrink=0.8)
    bar.ax.axhline(chance, color="white", linewidth=1.6)
    bar.ax.tick_params(labelsize=7.5)
    ticks = np.arange(0, len(overlap_EE), max(1, len(overlap_EE) // 12))
    axes.set_xticks(ticks, [str(tick + 1) for tick in ticks], fontsize=7.5)
    axes.set_yticks(ticks, [str(tick + 1) for tick in ticks], fontsize=7.5)
    axes.set_xlabel("expert, in the order above", fontsize=8.5)
    axes.set_title(
        f"overlap of two bases: {layer['overlap_mean']:.2f}\n(chance {chance:.2f}, white line)",
        fontsize=9,
    )


def _draw_stability(axes: Axes, stability: Sequence[Mapping[str, Any]], blocks: Sequence[int]) -> None:
    axes.set_title("stability while training", fontsize=10)
    if not stability:
        axes.set_axis_off()
        axes.text(
            0.5,
            0.5,
            "no routing snapshots\nbeside this checkpoint",
            ha="center",
            va="center",
            fontsize=10,
            transform=axes.transAxes,
        )
        return
    for index, block in enumerate(blocks):
        colour = _LINES[index % len(_LINES)]
        for name, at, style, text in (
            ("to_previous", "epoch", "o-", "saved epoch before"),
            ("previous_to_last", "previous", "s--", "last epoch"),
        ):
            epochs = [point[at] for point in stability]
            same = [point[name][index]["same_first"] for point in stability]
            axes.plot(
                epochs, same, style, color=colour, markersize=4, linewidth=1.4, label=f"block {block}, {text}"
            )
    axes.set_ylim(0, 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel("tokens with the same first expert as in the ...", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
