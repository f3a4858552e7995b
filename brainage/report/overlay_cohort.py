"""What a cohort of maps has in common: which expert owns which anatomy, and mean contributions by age."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from brainage.anatomy.grid import SPACE
from brainage.anatomy.projection import to_model_grid
from brainage.errors import InputError
from brainage.report.overlay import (
    INK,
    PAPER,
    Layer,
    caption,
    check_format,
    draw_layer,
    key,
    masked,
    read_map,
    save_figure,
)

_END = f"_space-{SPACE}_res-token_desc-contribution_map.nii.gz"
_NOTE = "MNI coordinates in mm. Radiological: the subject's right (R) is on the left. Research use only."


@dataclass(frozen=True)
class ExpertAtlas:
    """Over S scans, on the token grid.

    Attributes:
        owner: 1-based index of the expert with the largest mean share; 0 outside.
        agreement: share of the scans whose own first expert it is; NaN outside.
        experts: names.
        scans: S.
    """

    owner: nib.Nifti1Image
    agreement: nib.Nifti1Image
    experts: tuple[str, ...]
    scans: int


def find_prefixes(paths: Sequence[str | PathLike[str]]) -> list[Path]:
    """Prefixes of all scans with maps in folders of ``predict --maps``.

    Raises:
        InputError: a folder without any.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        here = sorted({*path.glob(f"*{_END}"), *path.glob(f"*/*{_END}")}) if path.is_dir() else []
        if not here:
            raise InputError(path, "no maps", "a folder of brainage predict --maps", "give that folder")
        found += [file.with_name(file.name.removesuffix(_END)) for file in here]
    return found


def token_map(prefix: Path, name: str) -> nib.Nifti1Image:
    """A map on the token grid."""
    return read_map(prefix.with_name(f"{prefix.name}_space-{SPACE}_res-token_desc-{name}_map.nii.gz"))


def expert_names(prefix: Path) -> tuple[str, ...]:
    """Names of the model's experts, as its region file lists them.

    Raises:
        InputError: no such file, or one without them.
    """
    path = prefix.with_name(f"{prefix.name}_regions.json")
    try:
        return tuple(str(name) for name in json.loads(path.read_text(encoding="utf-8"))["experts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(path, "no names of experts", "a file of predict --maps", "predict again") from error


def expert_atlas(prefixes: Sequence[Path]) -> ExpertAtlas:
    """Who owns which place over a cohort.

    Raises:
        InputError: a map is missing, or is of another model than the first one's.
    """
    experts = expert_names(prefixes[0])
    first = token_map(prefixes[0], "shares")
    total, owners = np.zeros(first.shape), []
    for prefix in prefixes:
        shares = np.asarray(token_map(prefix, "shares").dataobj, dtype=np.float64)
        if expert_names(prefix) != experts or shares.shape != total.shape:
            path = prefix.with_name(f"{prefix.name}_regions.json")
            raise InputError(path, "another model's experts", f"those of {prefixes[0].name}", "use one model")
        total += shares
        owners.append(np.where(shares.sum(-1) > 0, shares.argmax(-1) + 1, 0))
    inside = total.sum(-1) > 0
    owner = np.where(inside, total.argmax(-1) + 1, 0)
    agreement = np.where(inside, np.mean([own == owner for own in owners], axis=0), np.nan)
    return ExpertAtlas(
        nib.Nifti1Image(owner.astype(np.uint8), first.affine),
        nib.Nifti1Image(agreement.astype(np.float32), first.affine),
        experts,
        len(prefixes),
    )


def save_expert_atlas(path: str | PathLike[str], atlas: ExpertAtlas, background: nib.Nifti1Image) -> None:
    """Draw the owners, and below them how many scans agree, as PNG or SVG."""
    path = Path(path)
    check_format(path)
    figure = Figure(figsize=(12, 5.6), facecolor=PAPER)
    rows = (
        Layer("expert", _in_brain(atlas.owner, background), atlas.experts),
        Layer("agreement", _in_brain(atlas.agreement, background)),
    )
    for row, layer in enumerate(rows):
        bottom = 0.49 - 0.42 * row
        draw_layer(figure, (0.01, bottom, 0.86, 0.40), layer, background, "slices", "z")
        if layer.name != "expert":
            key(figure, (0.885, bottom + 0.05, 0.016, 0.30), layer)
    _legend_beside(figure, rows[0])
    caption(
        figure,
        f"Which expert owns which anatomy, {atlas.scans} scans",
        f"Below: share of the scans that agree. {_NOTE}",
    )
    save_figure(figure, path)


@dataclass(frozen=True)
class AgeGroup:
    """Mean contributions of the scans of an age group, on the token grid."""

    name: str
    scans: int
    mean: nib.Nifti1Image


def age_groups(prefixes: Sequence[Path], ages: Sequence[float], bounds: Sequence[float]) -> list[AgeGroup]:
    """Average contributions between the bounds (years); groups without a scan are left out."""
    edges = [-np.inf, *sorted(bounds), np.inf]
    groups = []
    for low, high in itertools.pairwise(edges):
        members = [prefix for prefix, age in zip(prefixes, ages, strict=True) if low <= age < high]
        if not members:
            continue
        images = [token_map(prefix, "contribution") for prefix in members]
        mean = np.mean([np.asarray(image.dataobj, dtype=np.float64) for image in images], axis=0)
        below, above = f"under {high:g}", f"{low:g} and over"
        name = below if np.isinf(low) else above if np.isinf(high) else f"{low:g} to {high:g}"
        groups.append(
            AgeGroup(name, len(members), nib.Nifti1Image(mean.astype(np.float32), images[0].affine))
        )
    return groups


def save_age_groups(
    path: str | PathLike[str], groups: Sequence[AgeGroup], background: nib.Nifti1Image
) -> None:
    """Draw one row a group, all in the same colours, as PNG or SVG."""
    path = Path(path)
    check_format(path)
    values = np.concatenate([np.asarray(group.mean.dataobj).ravel() for group in groups])
    limit = max(float(np.percentile(np.abs(values[np.isfinite(values)]), 99)), 1e-3)
    height = 0.9 + 2.1 * len(groups)
    figure = Figure(figsize=(12, height), facecolor=PAPER)
    share = 2.1 / height
    for row, group in enumerate(groups):
        bottom = 1 - 0.5 / height - (row + 1) * share
        layer = Layer("contribution", _in_brain(group.mean, background), limit=limit)
        draw_layer(figure, (0.075, bottom, 0.80, 0.96 * share), layer, background, "slices", "z")
        text = f"{group.name}\nyears\n{group.scans} scan{'s' if group.scans != 1 else ''}"
        figure.text(0.012, bottom + share / 2, text, color=INK, fontsize=10, va="center")
    key(figure, (0.90, 0.3, 0.016, 0.4), Layer("contribution", groups[0].mean, limit=limit))
    caption(figure, "Mean contribution by age", _NOTE)
    save_figure(figure, path)


def _in_brain(image: nib.Nifti1Image, background: nib.Nifti1Image) -> nib.Nifti1Image:
    """A map of tokens on the 2 mm grid, within the brain of the template."""
    return masked(to_model_grid(image), to_model_grid(background))


def _legend_beside(figure: Figure, layer: Layer) -> None:
    """The experts' names right of the upper row."""
    key(figure, (0.885, 0.5, 0.016, 0.4), layer)
    legend = figure.legends[-1]
    legend.set_bbox_to_anchor((0.875, 0.70))
    for text in legend.get_texts():
        text.set_fontsize(7.5)
