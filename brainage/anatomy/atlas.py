"""Parcellations in MNI space: the built-in one, or any volume with a table of its labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from brainage.anatomy.grid import MODEL_GRID, SPACE
from brainage.anatomy.labels import read_labels, read_table
from brainage.errors import InputError
from brainage.resources import resource

# Bilateral groups of the built-in atlas, one regional expert each; the order is that of the experts.
GROUPS = (
    "frontal",
    "parietal",
    "temporal",
    "occipital",
    "limbic",
    "subcortical",
    "ventricles",
    "white_matter",
    "cerebellum_brainstem",
)

_BUILT_IN = f"atlases/brainage/tpl-{SPACE}_res-2_atlas-brainage_dseg"
_LATERALISED = 0.9  # share of a region's volume on one side that makes it a left or right one
_FITS = 0.5  # share of the labelled volume that must lie in the template's brain


@dataclass(frozen=True)
class Atlas:
    """Labelled regions on the model grid.

    Attributes:
        labels: (80, 96, 80) int32 on ``MODEL_GRID``; 0 is background.
        affine: (4, 4) voxel index -> world RAS mm, that of ``MODEL_GRID``.
        regions: one row a region: index, name (unique), hemisphere (L, R or bilateral), group.
        space: the space that the file declares, or "MNI152 (assumed)".
        name: short name of the atlas.
    """

    labels: np.ndarray
    affine: np.ndarray
    regions: pd.DataFrame
    space: str
    name: str

    @property
    def volumes_ml(self) -> np.ndarray:
        """(R,) volume of each region on the model grid, ml."""
        counts = np.bincount(self.labels.ravel(), minlength=int(self.regions["index"].max()) + 1)
        return counts[self.regions["index"].to_numpy()] * MODEL_GRID.spacing**3 / 1000


def load_atlas(path: str | PathLike[str] | None = None, table: str | PathLike[str] | None = None) -> Atlas:
    """Read a parcellation onto the model grid (nearest neighbour).

    Args:
        path: 3-D label volume in an MNI152 space; None is the built-in atlas.
        table: TSV with columns ``index`` and ``name`` (BIDS ``dseg.tsv``; TemplateFlow's ``label`` is
            taken too), optionally ``hemisphere`` and ``group``. None looks beside the volume. Without
            ``hemisphere`` the names decide (suffixes such as ``_L``, ``lh``, ``Left``), then the position.
            Without ``group`` a region joins the built-in group that it overlaps most.

    Raises:
        InputError: the volume is no 3-D map of labels with an affine, its labels and the table differ, it
            does not lie in the template's brain, or left and right are swapped.
    """
    if path is None:
        return built_in()
    path = Path(path)
    volume, affine = read_labels(path)
    rows = read_table(_table_beside(path) if table is None else Path(table), volume)
    space = _declared_space(path)
    labels = _onto_model_grid(volume, affine)
    _check_place(path, volume, affine, labels)
    rows["hemisphere"] = _hemispheres(path, rows, labels)
    rows["name"] = _unique_names(rows)
    if "group" not in rows:
        rows["group"] = _nearest_groups(rows, labels)
    entity = re.search(r"(?:^|_)(?:atlas|seg)-([A-Za-z0-9]+)", path.name)
    return Atlas(
        labels=labels,
        affine=MODEL_GRID.affine,
        regions=rows[["index", "name", "hemisphere", "group"]].reset_index(drop=True),
        space=space or "MNI152 (assumed)",
        name=entity.group(1) if entity else path.name.split(".")[0],
    )


@lru_cache(maxsize=1)
def built_in() -> Atlas:
    """The atlas that travels with the package; its labelled voxels are the template's brain."""
    labels, _ = read_labels(resource(f"{_BUILT_IN}.nii.gz"))
    labels.flags.writeable = False
    regions = pd.read_csv(resource(f"{_BUILT_IN}.tsv"), sep="\t")
    return Atlas(labels, MODEL_GRID.affine, regions, SPACE, "brainage")


def _table_beside(path: Path) -> Path:
    stem = re.sub(r"\.nii(\.gz)?$|\.mgz$", "", path.name)
    # TemplateFlow keeps one table for all resolutions.
    names = dict.fromkeys([f"{stem}.tsv", re.sub(r"_res-[^_]+", "", stem) + ".tsv"])
    for name in names:
        if path.with_name(name).is_file():
            return path.with_name(name)
    raise InputError(
        path, "no table beside it", f"{next(iter(names))} with columns index and name", "name it"
    )


def _declared_space(path: Path) -> str | None:
    entity = re.search(r"(?:^|_)(?:space|tpl)-([A-Za-z0-9]+)", path.name)
    if entity and not re.search(r"MNI|ICBM", entity.group(1), re.IGNORECASE):
        raise InputError(
            path, f"space {entity.group(1)}", "an MNI152 space", "bring the atlas to MNI space first"
        )
    return entity.group(1) if entity else None


def _onto_model_grid(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Nearest label at each voxel of the model grid.

    A tie goes away from the midplane, so that both sides agree.
    """
    ijk_3N = np.indices(MODEL_GRID.shape).reshape(3, -1)
    xyz_3N = MODEL_GRID.affine[:3, :3] @ ijk_3N + MODEL_GRID.affine[:3, 3:]
    xyz_3N += np.stack(
        [0.01 * np.sign(xyz_3N[0]), np.full(xyz_3N.shape[1], 0.01), np.full(xyz_3N.shape[1], 0.01)]
    )
    inverse = np.linalg.inv(affine)
    source_3N = np.rint(inverse[:3, :3] @ xyz_3N + inverse[:3, 3:]).astype(int)
    held = ((source_3N >= 0) & (source_3N < np.array(volume.shape)[:, None])).all(axis=0)
    labels = np.zeros(xyz_3N.shape[1], np.int32)
    labels[held] = volume[tuple(source_3N[:, held])]
    return labels.reshape(MODEL_GRID.shape)


def _check_place(path: Path, volume: np.ndarray, affine: np.ndarray, labels: np.ndarray) -> None:
    brain = built_in().labels > 0
    volume_mm3 = np.count_nonzero(volume) * abs(np.linalg.det(affine[:3, :3]))
    placed = labels > 0
    share = np.count_nonzero(placed & brain) * MODEL_GRID.spacing**3 / volume_mm3
    if share < _FITS:
        raise InputError(
            path,
            f"{100 * share:.0f} % of the labelled volume inside the MNI152 brain",
            f"at least {100 * _FITS:.0f} %",
            "check the atlas's space and its affine",
        )
    _, ys, zs = np.nonzero(brain)
    for axis, coordinates, name in ((1, ys, "front and back"), (2, zs, "top and bottom")):
        turned = np.roll(
            np.flip(brain, axis), coordinates.min() + coordinates.max() + 1 - brain.shape[axis], axis
        )
        if np.count_nonzero(placed & turned) > 1.02 * np.count_nonzero(placed & brain):
            raise InputError(
                path, f"an atlas that fits better with {name} swapped", "RAS world axes", "mend its affine"
            )


_SIDE = re.compile(r"(?:^|[^A-Za-z])(?:(l|lh|left)|(r|rh|right))(?=$|[^A-Za-z])", re.IGNORECASE)


def _hemispheres(path: Path, rows: pd.DataFrame, labels: np.ndarray) -> list[str]:
    """L, R or bilateral for each row; refuses an atlas most of whose named sides are the wrong ones."""
    left_of, all_of = _counts(labels[: MODEL_GRID.shape[0] // 2], rows), _counts(labels, rows)
    left_share = left_of / np.maximum(all_of, 1)
    sides, wrong, named = [], 0.0, 0
    for i, (name, given) in enumerate(zip(rows["name"], rows["hemisphere"], strict=True)):
        found = _SIDE.search(name)
        side = given or (("L" if found.group(1) else "R") if found else "")
        if side in ("L", "R"):
            named += all_of[i]
            wrong += all_of[i] - left_of[i] if side == "L" else left_of[i]
        elif not side:
            side = "L" if left_share[i] > _LATERALISED else "R" if left_share[i] < 1 - _LATERALISED else ""
        sides.append(side or "bilateral")
    if wrong > named / 2:
        raise InputError(
            path,
            f"{100 * wrong / named:.0f} % of the volume of the left and right regions on the other side",
            "left at negative x",
            "mend the affine, or the names in the table",
        )
    return sides


def _unique_names(rows: pd.DataFrame) -> pd.Series:
    """Names such as CerebrA's, the same on both sides, get the side's letter; others stay."""
    twice = rows["name"].duplicated(keep=False) & rows["hemisphere"].isin(["L", "R"])
    names = rows["name"].where(~twice, rows["name"] + " " + rows["hemisphere"])
    again = names.duplicated(keep=False)
    return names.where(~again, names + " (" + rows["index"].astype(str) + ")")


def _nearest_groups(rows: pd.DataFrame, labels: np.ndarray) -> list[str]:
    shipped = built_in()
    codes = np.zeros(int(shipped.regions["index"].max()) + 1, int)
    codes[shipped.regions["index"]] = [GROUPS.index(group) + 1 for group in shipped.regions["group"]]
    nearest = ndimage.distance_transform_edt(shipped.labels == 0, return_distances=False, return_indices=True)
    filled = codes[shipped.labels[tuple(nearest)]]
    votes = np.array(
        [_counts(np.where(filled == code, labels, 0), rows) for code in range(1, len(GROUPS) + 1)]
    )
    # Parcels of a cortex reach into the white matter under it; only what is mostly white matter is such.
    votes[GROUPS.index("white_matter")] //= 2
    return [GROUPS[best] for best in votes.argmax(axis=0)]


def _counts(labels: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """(R,) voxels of each row's label."""
    return np.bincount(labels.ravel(), minlength=int(rows["index"].max()) + 1)[rows["index"].to_numpy()]
