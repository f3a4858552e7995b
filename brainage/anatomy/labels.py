"""Reading a label volume and its table, and refusing what is none."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage

from brainage.errors import InputError

_SIDES = {"l": "L", "lh": "L", "left": "L", "r": "R", "rh": "R", "right": "R"}
_NO_SIDE = {"", "n/a", "na", "nan"}


def read_labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The volume (X, Y, Z) int32 and its affine (4, 4) to world RAS mm.

    Raises:
        InputError: no image, not 3-D, no affine, or values that are no labels.
    """
    if not path.is_file():
        raise InputError(path, "no such file", "a label volume (NIfTI)", "check the path")
    try:
        image = nib.load(path)
        if not isinstance(image, SpatialImage) or image.affine is None:
            raise InputError(path, "no volume with an affine", "a label volume (NIfTI)", "check the file")
        data = np.asanyarray(image.dataobj)
    except InputError:
        raise
    except Exception as error:  # nibabel raises whatever the damage leads to
        raise InputError(path, "no readable image", "a label volume (NIfTI)", "check the file") from error
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3 or data.dtype.names is not None:
        found = f"{data.ndim} dimensions" if data.dtype.names is None else "colours"
        raise InputError(path, found, "a 3-D volume of integer labels", "pick a deterministic atlas (dseg)")
    header, affine = image.header, image.affine.astype(np.float64)
    if isinstance(header, nib.Nifti1Header) and not (header["sform_code"] or header["qform_code"]):
        raise InputError(path, "no affine", "a volume placed in MNI space", "set its sform")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise InputError(path, "an affine that cannot be inverted", "a volume placed in MNI space", "mend it")
    if not np.isfinite(data).all() or (data != np.rint(data)).any() or data.min() < 0:
        raise InputError(
            path,
            "values that are no labels",
            "integers from 0 (background)",
            "pick a deterministic atlas (dseg)",
        )
    if data.max() == 0:
        raise InputError(path, "no labelled voxel", "a volume of integer labels", "check the file")
    return data.astype(np.int32), affine


def read_table(path: Path, volume: np.ndarray) -> pd.DataFrame:
    """Rows index (int), name, hemisphere ("" unknown, else L, R or bilateral) and, where given, group.

    Args:
        path: TSV with a header; a row of index 0 is background and is left out.
        volume: the labels that the rows must name, all of them and no others.
    """
    try:
        raw = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(
            path, "no readable table", "a TSV with columns index and name", "check it"
        ) from error
    raw = raw.rename(columns=str.lower).rename(columns={"label": "index", "hemi": "hemisphere"})
    raw = raw.apply(lambda column: column.str.strip())
    if not {"index", "name"} <= set(raw.columns):
        raise InputError(path, "columns " + ", ".join(raw), "columns index and name", "rename them")
    index = pd.to_numeric(raw["index"], errors="coerce")
    if index.isna().any() or (index != np.rint(index)).any() or (index < 0).any():
        bad = raw["index"][index.isna() | (index != index.round()) | (index < 0)].iloc[0]
        raise InputError(path, f"index {bad!r}", "whole numbers from 0", "mend the row")
    raw["index"] = index.astype(int)
    raw = raw[raw["index"] > 0].reset_index(drop=True)
    if raw["index"].duplicated().any():
        twice = raw["index"][raw["index"].duplicated()].iloc[0]
        raise InputError(path, f"index {twice} twice", "one row a label", "remove one")
    present = set(np.unique(volume).tolist()) - {0}
    _same_labels(path, present - set(raw["index"]), "in the volume but not in the table")
    _same_labels(path, set(raw["index"]) - present, "in the table but not in the volume")
    if (raw["name"] == "").any():
        raise InputError(path, "a region without a name", "a name in each row", "fill it in")
    if "group" in raw and (raw["group"] == "").any():
        raise InputError(
            path, "a region without a group", "a group in each row, or no such column", "fill it in"
        )
    given = raw["hemisphere"].str.lower() if "hemisphere" in raw else pd.Series("", index=raw.index)
    raw["hemisphere"] = [_SIDES.get(side, "" if side in _NO_SIDE else "bilateral") for side in given]
    return raw


def _same_labels(path: Path, labels: set[int], where: str) -> None:
    if labels:
        some = ", ".join(map(str, sorted(labels)[:5])) + (", ..." if len(labels) > 5 else "")
        raise InputError(
            path, f"labels {where}: {some}", "the same labels in both", "use the atlas's own table"
        )
