"""``brainage predict``: brain ages of scans, and where on the anatomy they came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from brainage.models.weights import TrainedModel
    from brainage.predict.batch import Outcome

SHIPPED = "models/shipped/ermoe_ba.safetensors"


def predict(
    scans: Annotated[
        list[Path],
        typer.Argument(help="T1w NIfTI files, raw or preprocessed, or folders of either.", metavar="SCAN..."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV to write, one row a scan.")],
    maps: Annotated[
        Path | None,
        typer.Option("--maps", help="Folder for expert, alignment and contribution maps, tables, mosaics."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="A model.safetensors; by default the shipped one.")
    ] = None,
    derivatives: Annotated[
        Path | None,
        typer.Option("--derivatives", help="Keep the preprocessed scans here; by default they are removed."),
    ] = None,
) -> None:
    """Predict brain age from T1-weighted scans. Research use only; not a medical device.

    Every scan gets a row with its status: ok, warning or failed. Ages are in years, uncorrected, with a 90 %
    interval. Exit code 3 if some scans failed, 1 if all did.
    """
    import tempfile
    from contextlib import ExitStack

    import pandas as pd
    from rich.console import Console

    from brainage.cli.terminal import progress
    from brainage.files import replacing
    from brainage.models.weights import load_trained
    from brainage.predict.batch import find_requests, predict_request
    from brainage.resources import resource

    trained = load_trained(model or resource(SHIPPED))
    requests = find_requests(scans)
    rows = []
    with ExitStack() as stack:
        work = derivatives or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="brainage-")))
        for request in progress(requests, "Predicting"):
            outcome = predict_request(request, trained, work, maps)
            if outcome.prefix is not None:
                _draw_mosaic(outcome, trained)
            rows.append(outcome.row)
            # After every scan, so that an interrupted run keeps what it has done.
            with replacing(output) as partial:
                pd.DataFrame(rows).to_csv(partial, index=False)
    console = Console(highlight=False)
    for row in rows:
        console.print(_line(row), soft_wrap=True, markup=False)
    failed = sum(row["status"] == "failed" for row in rows)
    if failed:
        raise typer.Exit(1 if failed == len(rows) else 3)


def _line(row: dict[str, str]) -> str:
    who = " ".join(part for part in (row["participant_id"], row["session_id"]) if part)
    who = who or Path(row["path"]).name
    if row["status"] == "failed":
        return f"{who}: failed: {row['message']}"
    interval = ""
    if row["interval_low"]:
        level = f"{float(row['interval_level']):.0%}"
        interval = f" ({level} interval {row['interval_low']} to {row['interval_high']})"
    message = f" - warning: {row['message']}" if row["message"] else ""
    return f"{who}: {row['predicted_age']} years{interval}{message}"


def _draw_mosaic(outcome: Outcome, trained: TrainedModel) -> None:
    """The maps on the scan's own anatomy: the raw scan, or the MNI volume of a preprocessed one."""
    import nibabel as nib

    from brainage.anatomy.grid import SPACE
    from brainage.evaluate.ages import is_simulated
    from brainage.predict.maps import MAPS, map_path
    from brainage.report.mosaic import save_mosaic

    scan, prefix = outcome.scan, outcome.prefix
    if scan is None or prefix is None:
        return
    raw = Path(outcome.row["path"])
    normalised = raw == scan.volume_path
    space = SPACE if normalised else "T1w"
    maps = {name: nib.Nifti1Image.from_filename(map_path(prefix, space, name)) for name in MAPS}
    mask = None if normalised else nib.Nifti1Image(scan.native_mask().astype("uint8"), scan.native_affine)
    title = f"{prefix.name}: predicted brain age {outcome.row['predicted_age']} years"
    if outcome.row["interval_low"]:
        level = f"{float(outcome.row['interval_level']):.0%}"
        title += f" ({level} interval {outcome.row['interval_low']} to {outcome.row['interval_high']})"
    save_mosaic(
        prefix.with_name(f"{prefix.name}_mosaic.png"),
        nib.Nifti1Image.from_filename(raw),
        expert=maps["expert"],
        alignment=maps["alignment"],
        contribution=maps["contribution"],
        expert_names=trained.model.expert_names,
        title=title,
        simulated=any(is_simulated(folder) for folder in raw.absolute().parents),
        warning=outcome.row["message"],
        brain_mask=mask,
    )
