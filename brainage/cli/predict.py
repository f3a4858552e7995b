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

    from brainage.cli.terminal import exit_for_failures, logger, progress
    from brainage.errors import plain_words
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
            try:
                _draw_mosaic(outcome, trained)
            except Exception as error:
                # A picture must cost neither this age nor the other scans.
                logger.debug("Drawing failed", exc_info=True)
                said = f"no mosaic could be drawn: {plain_words(error)}"
                outcome.row["message"] = "; ".join(filter(None, (outcome.row["message"], said)))
                outcome.row["status"] = "warning"
            rows.append(outcome.row)
            # After every scan, so that an interrupted run keeps what it has done.
            with replacing(output) as partial:
                pd.DataFrame(rows).to_csv(partial, index=False)
    console = Console(highlight=False)
    for row in rows:
        console.print(_line(row), soft_wrap=True, markup=False)
    exit_for_failures(sum(row["status"] == "failed" for row in rows), len(rows))


def _line(row: dict[str, str]) -> str:
    who = " ".join(part for part in (row["participant_id"], row["session_id"]) if part)
    who = who or Path(row["path"]).name
    if row["status"] == "failed":
        return f"{who}: failed: {row['message']}"
    message = f" - warning: {row['message']}" if row["message"] else ""
    return f"{who}: {_age(row)}{message}"


def _age(row: dict[str, str]) -> str:
    """The predicted age with its interval, where there is one."""
    if not row["interval_low"]:
        return f"{row['predicted_age']} years"
    level = f"{float(row['interval_level']):.0%}"
    return f"{row['predicted_age']} years ({level} interval {row['interval_low']} to {row['interval_high']})"


def _draw_mosaic(outcome: Outcome, trained: TrainedModel) -> None:
    """The maps on the scan's own anatomy: the raw scan, or the MNI volume of a preprocessed one.

    Nothing is drawn of a scan without maps.
    """
    import nibabel as nib
    import numpy as np

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
    t1 = nib.Nifti1Image.from_filename(raw)
    if not normalised:
        # As it was loaded: one volume, in mm whatever the file's units, with the affine that was chosen.
        t1 = nib.Nifti1Image(np.asarray(t1.dataobj).reshape(scan.native_shape), scan.native_affine)
    save_mosaic(
        prefix.with_name(f"{prefix.name}_mosaic.png"),
        t1,
        expert=maps["expert"],
        alignment=maps["alignment"],
        contribution=maps["contribution"],
        expert_names=trained.model.routed_names,
        title=f"{prefix.name}: predicted brain age {_age(outcome.row)}",
        simulated=any(is_simulated(folder) for folder in raw.absolute().parents),
        warning=outcome.row["message"],
        brain_mask=mask,
    )
