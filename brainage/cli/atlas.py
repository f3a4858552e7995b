"""``brainage atlas``: the built-in parcellation, or how brainage reads another one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from brainage.anatomy.atlas import Atlas


class Action(StrEnum):
    """What to do."""

    list = "list"
    show = "show"


def atlas(
    action: Annotated[
        Action, typer.Argument(help="list: the atlases; show: the regions of one.")
    ] = Action.list,
    path: Annotated[
        Path | None,
        typer.Option("--atlas", help="Label volume (NIfTI) in MNI space instead of the built-in one."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="Its BIDS dseg.tsv; default: the one beside it.")
    ] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Also draw it, by group, to this PNG.")] = None,
) -> None:
    """List the built-in atlas, or show the regions of an atlas with their side, group and volume.

    An atlas of your own is checked as training would: space, orientation, labels and sides must fit.
    """
    from rich.console import Console
    from rich.table import Table

    from brainage.anatomy.atlas import load_atlas

    if table is not None and path is None:
        raise typer.BadParameter("needs --atlas, the volume that the table describes", param_hint="--table")
    if action is Action.list and path is not None:
        raise typer.BadParameter("is for: brainage atlas show", param_hint="--atlas")
    loaded = load_atlas(path, table)
    console = Console(highlight=False)
    if action is Action.list:
        rows = Table(title="Atlases in this installation")
        for heading in ("name", "regions", "groups", "space"):
            rows.add_column(heading)
        groups = loaded.regions["group"].nunique()
        rows.add_row(f"{loaded.name} (built in)", str(len(loaded.regions)), str(groups), loaded.space)
        console.print(rows)
        console.print("Another one: brainage atlas show --atlas FILE.nii.gz --table FILE.tsv", soft_wrap=True)
    else:
        console.print(_regions(loaded))
    if png is not None:
        _draw(loaded, png)


def _regions(loaded: Atlas) -> Table:
    from rich.table import Table

    rows = Table(title=f"{loaded.name}, {loaded.space}")
    for heading in ("index", "region", "side", "group"):
        rows.add_column(heading)
    rows.add_column("volume, ml", justify="right")
    columns = (loaded.regions[name] for name in ("index", "name", "hemisphere", "group"))
    for index, name, side, group, ml in zip(*columns, loaded.volumes_ml, strict=True):
        rows.add_row(str(index), name, side, group, f"{ml:.1f}")
    rows.caption = "Volumes on the 2 mm model grid; the built-in atlas is coarse and not for volumetry."
    return rows


def _draw(loaded: Atlas, png: Path) -> None:
    import nibabel as nib
    import numpy as np
    from nilearn.datasets import load_mni152_template

    from brainage.anatomy.projection import to_model_grid
    from brainage.report.atlas_figure import save_atlas_figure

    labels = nib.Nifti1Image(loaded.labels.astype(np.int32), loaded.affine)
    t1 = to_model_grid(load_mni152_template(resolution=1), order=1)
    groups = list(zip(loaded.regions["index"].astype(int), loaded.regions["group"], strict=True))
    save_atlas_figure(
        png, t1, labels, groups, f"Atlas {loaded.name}, regions by group, on the ICBM152 template"
    )
