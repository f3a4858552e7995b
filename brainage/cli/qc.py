"""``brainage qc``: pictures and one page to judge a preprocessed cohort by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

    from brainage.report.qc_content import QcEntry


def qc(
    pre: Annotated[Path, typer.Argument(help="Output folder of brainage preprocess.", metavar="PRE")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML page to write.")],
    raw: Annotated[
        Path | None,
        typer.Option("--raw", help="The folder that was preprocessed: pictures then show the scan."),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="Judge anew by the qc limits of this YAML file.")
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="One PNG a scan, beside the page.")
    ] = True,
    title: Annotated[str, typer.Option("--title", help="Heading of the page.")] = "Quality control",
) -> None:
    """Write one self-contained HTML page with verdicts, figures and thumbnails, failed scans first.

    The pictures go to a folder of the page's name: the brain mask on the scan (with --raw), and the
    template's brain and ventricles on the aligned brain.
    """
    from brainage.cli.terminal import progress
    from brainage.config import PreprocessRecipe, load_recipe
    from brainage.evaluate.ages import is_simulated
    from brainage.report.qc_content import read_status
    from brainage.report.qc_page import write_qc_page

    settings = load_recipe(recipe, PreprocessRecipe) if recipe else PreprocessRecipe()
    table = read_status(pre)
    pictured = output.with_name(f"{output.stem}_pictures") if pictures else None
    waiting = int((table["status"] == "waiting").sum())
    rows = [dict(row) for _, row in table[table["status"] != "waiting"].iterrows()]
    notes = [f"{waiting} more scans are still to be preprocessed."] if waiting else []
    entries = list(
        progress(_entries(rows, pre, raw, pictured, settings if recipe else None), "Drawing", len(rows))
    )
    limits = {name: limit.good for name, limit in settings.qc if limit is not None}
    write_qc_page(
        output,
        entries,
        limits,
        title=title,
        simulated=is_simulated(pre) or (raw is not None and is_simulated(raw)),
        notes=notes,
    )
    typer.echo(output)


def _entries(
    rows: list[dict[str, Any]], pre: Path, raw: Path | None, folder: Path | None, recipe: Any
) -> Iterator[QcEntry]:
    from brainage.cli.terminal import logger
    from brainage.errors import plain_words
    from brainage.preprocess.outputs import find_preprocessed, read_sidecar

    outputs = {}
    for volume_path in find_preprocessed(pre):
        for source in read_sidecar(volume_path).get("Sources", []):
            outputs[str(source)] = volume_path
            outputs.setdefault(Path(str(source)).name, volume_path)
    for row in rows:
        found = outputs.get(row["path"], outputs.get(Path(row["path"]).name))
        try:
            yield _entry(row, found, raw, folder, recipe)
        except Exception as error:
            # A picture must not cost the page.
            logger.debug("Drawing failed", exc_info=True)
            logger.warning("%s: no picture: %s", Path(row["path"]).name, plain_words(error))
            yield _entry(row, None, None, None, recipe)


def _entry(
    row: dict[str, Any], volume_path: Path | None, raw: Path | None, folder: Path | None, recipe: Any
) -> QcEntry:
    from urllib.parse import quote

    from brainage.files import replacing
    from brainage.preprocess.outputs import VOLUME_END, read_preprocessed
    from brainage.report.qc_content import QcEntry, figures_of
    from brainage.report.qc_picture import png_of, qc_picture, thumbnail

    file = Path(row["path"]).name
    done = None if row["status"] == "failed" or volume_path is None else read_preprocessed(volume_path)
    name = done.volume_path.name.removesuffix(f"{VOLUME_END}.nii.gz") if done else file
    figures = {**figures_of(row), **(done.qc if done else {})}
    status, message = row["status"], row["message"]
    if recipe is not None and done is not None:
        status, message = _judged(done.warnings, figures, recipe)
    scan = None if raw is None else _scan(_place(raw, row["path"]))
    mask = None
    if done is not None and scan is not None:
        mask = _canonical_mask(done.native_mask(), done.native_affine)
    volume = done.volume() if done else None
    link = ""
    if folder is not None and (scan is not None or volume is not None):
        picture = qc_picture(title=name, status=status, reasons=message, scan=scan, mask=mask, volume=volume)
        path = folder / f"{name}_qc.png"
        with replacing(path) as partial:
            partial.write_bytes(png_of(picture))
        link = f"{quote(folder.name)}/{quote(path.name)}"
    return QcEntry(name, row["path"], status, message, figures, thumbnail(scan, volume), link)


def _judged(warnings: tuple[str, ...], figures: dict[str, float], recipe: Any) -> tuple[str, str]:
    """Status and message by the limits of another recipe; what loading warned of stays."""
    from brainage.preprocess.qc import judge, not_of_figures

    doubts, failures = judge(figures, recipe.qc)
    if failures:
        return "failed", "; ".join(failures)
    doubts = [*not_of_figures(warnings), *doubts]
    return ("warning" if doubts else "ok"), "; ".join(doubts)


def _place(raw: Path, path: str) -> Path:
    """Where a scan lies; a DICOM folder may be what was preprocessed itself."""
    place = raw / path
    return raw if raw.absolute().name == path and not place.exists() else place


def _scan(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Intensities and affine with axes in the order of RAS; None of a file that cannot be read."""
    from brainage.errors import InputError
    from brainage.preprocess.geometry import to_canonical
    from brainage.preprocess.load import read_scan

    try:
        array, affine, _ = read_scan(path)
    except InputError:
        return None
    return to_canonical(array, affine)


def _canonical_mask(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    from brainage.preprocess.geometry import to_canonical

    return to_canonical(mask, affine)[0]
