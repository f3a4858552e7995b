"""``brainage predict``: brain ages of scans, and where on the anatomy they came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainage.cli.preprocess import RecipeFile

if TYPE_CHECKING:
    from brainage.models.weights import TrainedModel
    from brainage.predict.batch import Outcome

SHIPPED = "models/shipped/ermoe_ba.safetensors"


def predict(
    scans: Annotated[
        list[Path],
        typer.Argument(
            help="T1w scans, raw or preprocessed: files, BIDS or other folders, DICOM folders, or a CSV or "
            "TSV with a column path.",
            metavar="SCAN...",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV to write, one row a scan.")],
    maps: Annotated[
        Path | None,
        typer.Option("--maps", help="Folder for expert, alignment and contribution maps, tables, mosaics."),
    ] = None,
    all_maps: Annotated[
        bool,
        typer.Option("--all-maps", help="In the scan's own space too every layer's maps and all shares."),
    ] = False,
    model: Annotated[
        Path | None, typer.Option("--model", help="A model.safetensors; by default the shipped one.")
    ] = None,
    participants: Annotated[
        Path | None,
        typer.Option(
            "--participants", help="participants.tsv with true ages: adds the gaps, raw and corrected."
        ),
    ] = None,
    derivatives: Annotated[
        Path | None,
        typer.Option("--derivatives", help="Keep the preprocessed scans here; by default they are removed."),
    ] = None,
    recipe: RecipeFile = None,
) -> None:
    """Predict brain age from T1-weighted scans. Research use only; not a medical device.

    Every scan gets a row with its status: ok, warning or failed. Ages are in years, uncorrected, with a 90 %
    interval that widens where the model errs more; interval_scope says what another scanner does to both.
    With --participants there are gaps, predicted minus true age, too: as they are, and less the age bias of
    the model's cross-validation (Cole; de Lange & Cole). Raw scans are preprocessed as the training scans
    were and judged by this version's limits of quality; --recipe overrules both. Exit code 3 if some scans
    failed, 1 if all did.
    """
    import tempfile
    from contextlib import ExitStack

    import pandas as pd
    from rich.console import Console

    from brainage.cli.terminal import exit_for_failures, progress
    from brainage.config import PreprocessRecipe, load_recipe
    from brainage.data.participants import read_participants
    from brainage.data.true_ages import TrueAges
    from brainage.files import replacing
    from brainage.models.weights import load_trained
    from brainage.predict.batch import find_requests, predict_request
    from brainage.resources import resource

    if all_maps and maps is None:
        raise typer.BadParameter("needs a folder for them: --maps", param_hint="--all-maps")
    trained = load_trained(model or resource(SHIPPED))
    true_ages = TrueAges(read_participants(participants)) if participants else None
    settings = load_recipe(recipe, PreprocessRecipe) if recipe else None
    requests = find_requests(scans)
    rows = []
    with ExitStack() as stack:
        work = derivatives or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="brainage-")))
        for request in progress(requests, "Predicting"):
            outcome = predict_request(request, trained, work, maps, settings, all_maps, true_ages)
            draw_mosaic_or_say(outcome, trained)
            rows.append(outcome.row)
            # After every scan, so that an interrupted run keeps what it has done.
            with replacing(output) as partial:
                pd.DataFrame(rows).to_csv(partial, index=False)
    console = Console(highlight=False)
    for row in rows:
        console.print(age_line(row), soft_wrap=True, markup=False)
    for scope in dict.fromkeys(row["interval_scope"] for row in rows if row["interval_scope"]):
        console.print(scope, soft_wrap=True, markup=False)
    exit_for_failures(sum(row["status"] == "failed" for row in rows), len(rows))


def draw_mosaic_or_say(outcome: Outcome, trained: TrainedModel) -> None:
    """Draw the maps beside them; a picture that fails costs neither the age nor the other scans."""
    from brainage.cli.terminal import logger
    from brainage.errors import plain_words

    try:
        _draw_mosaic(outcome, trained)
    except Exception as error:
        logger.debug("Drawing failed", exc_info=True)
        said = f"no mosaic could be drawn: {plain_words(error)}"
        outcome.row["message"] = "; ".join(filter(None, (outcome.row["message"], said)))
        outcome.row["status"] = "warning"


def age_line(row: dict[str, str]) -> str:
    """One scan's age, or what became of it, as a line for people."""
    who = " ".join(part for part in (row["participant_id"], row["session_id"]) if part)
    who = who or Path(row["path"]).name
    if row["status"] == "failed":
        return f"{who}: failed: {row['message']}"
    gap = f", true age {row['age']}, gap {float(row['gap']):+.1f}" if row.get("gap") else ""
    if gap and row["gap_de_lange"]:
        gap += f" (corrected for age bias {float(row['gap_de_lange']):+.1f})"
    message = f" - warning: {row['message']}" if row["message"] else ""
    return f"{who}: {_age(row)}{gap}{message}"


def _age(row: dict[str, str], digits: int = 2) -> str:
    """The predicted age with its interval, where there is one."""
    age, low, high = (
        f"{float(row[name]):.{digits}f}" if row[name] else ""
        for name in ("predicted_age", "interval_low", "interval_high")
    )
    if not low:
        return f"{age} years"
    return f"{age} years ({float(row['interval_level']):.0%} interval {low} to {high})"


def _draw_mosaic(outcome: Outcome, trained: TrainedModel) -> None:
    """The maps on the scan's own anatomy: the raw scan, or the MNI volume of a preprocessed one.

    Nothing is drawn of a scan without maps.
    """
    import nibabel as nib

    from brainage.anatomy.grid import SPACE
    from brainage.data.formats_reading import open_image, read_values
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
    if normalised:
        t1 = nib.Nifti1Image.from_filename(raw)
    else:
        # As it was loaded: one volume, in mm whatever the file's units, with the affine that was chosen.
        t1 = nib.Nifti1Image(read_values(open_image(raw), scan.native_shape, raw), scan.native_affine)
    save_mosaic(
        prefix.with_name(f"{prefix.name}_mosaic.png"),
        t1,
        expert=maps["expert"],
        alignment=maps["alignment"],
        contribution=maps["contribution"],
        expert_names=trained.model.routed_names,
        title=f"{prefix.name}: predicted brain age {_age(outcome.row, 1)}",
        simulated=any(is_simulated(folder) for folder in raw.absolute().parents),
        scope=outcome.row["interval_scope"],
        warning=outcome.row["message"],
        brain_mask=mask,
    )
