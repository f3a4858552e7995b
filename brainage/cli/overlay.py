"""``brainage overlay``: pictures of maps, of one scan or of a cohort."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kind(StrEnum):
    """What to draw."""

    mosaic = "mosaic"
    slices = "slices"
    glass = "glass"
    experts = "experts"
    ages = "ages"


class MapName(StrEnum):
    """Which map of a scan."""

    contribution = "contribution"
    expert = "expert"
    alignment = "alignment"


class Axis(StrEnum):
    """Across which slices lie."""

    x = "x"
    y = "y"
    z = "z"


def overlay(
    maps: Annotated[
        list[Path],
        typer.Argument(help="Folders of brainage predict --maps, or of one scan.", metavar="MAPS..."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .png or .svg file to write.")],
    kind: Annotated[
        Kind,
        typer.Option(
            "--kind",
            help="Of one scan: mosaic, slices, glass. Of a cohort: experts (who owns which anatomy), "
            "ages (mean contribution by age group).",
        ),
    ] = Kind.mosaic,
    map_name: Annotated[MapName, typer.Option("--map", help="Which map of a scan.")] = MapName.contribution,
    scan: Annotated[
        Path | None,
        typer.Option("--scan", help="Draw on this scan, in its own space; by default on the MNI template."),
    ] = None,
    axis: Annotated[Axis, typer.Option("--axis", help="Of --kind slices.")] = Axis.z,
    at: Annotated[str, typer.Option("--at", help="Of --kind slices: places in mm, as -20,0,20.")] = "",
    participants: Annotated[
        Path | None, typer.Option("--participants", help="Of --kind ages: BIDS participants.tsv.")
    ] = None,
    bounds: Annotated[
        str, typer.Option("--bounds", help="Of --kind ages: years between groups.")
    ] = "35,55,75",
) -> None:
    """Draw maps as PNG or SVG: colour bar in years, left and right marked, coordinates in mm.

    Maps show where the estimate comes from, not where disease is.
    """
    from nilearn.datasets import load_mni152_template

    from brainage.report import overlay_cohort

    prefixes = overlay_cohort.find_prefixes(maps)
    template = load_mni152_template(resolution=2)
    if kind is Kind.experts:
        overlay_cohort.save_expert_atlas(output, overlay_cohort.expert_atlas(prefixes), template)
    elif kind is Kind.ages:
        if participants is None:
            raise typer.BadParameter("--kind ages needs it", param_hint="--participants")
        kept, ages = _with_ages(prefixes, participants)
        groups = overlay_cohort.age_groups(kept, ages, _numbers(bounds, "--bounds"))
        overlay_cohort.save_age_groups(output, groups, template)
    else:
        _draw_scan(prefixes, output, kind, map_name, scan, axis, _numbers(at, "--at") if at else None)
    typer.echo(output)


def _draw_scan(
    prefixes: list[Path],
    output: Path,
    kind: Kind,
    map_name: MapName,
    scan: Path | None,
    axis: Axis,
    at: list[float] | None,
) -> None:
    from nilearn.datasets import load_mni152_template

    from brainage.anatomy.grid import SPACE
    from brainage.anatomy.projection import to_model_grid
    from brainage.report.overlay import Layer, masked, read_map, save_overlay
    from brainage.report.overlay_cohort import expert_names
    from brainage.report.scan_files import ScanImages

    if len(prefixes) > 1:
        names = ", ".join(prefix.name for prefix in prefixes[:3])
        raise typer.BadParameter(f"holds {len(prefixes)} scans ({names}, ...); give the folder of one")
    (prefix,) = prefixes
    if scan is not None and kind is Kind.glass:
        raise typer.BadParameter("a glass brain is in MNI space", param_hint="--scan")
    if scan is None:
        background, space = load_mni152_template(resolution=1), "MNI"
        image = read_map(prefix.with_name(f"{prefix.name}_space-{SPACE}_desc-{map_name}_map.nii.gz"))
        image = masked(image, to_model_grid(background))
    else:
        files = ScanImages(prefix, scan)
        background, image, space = files.t1(), files.map(map_name), "Scanner"
        mask = files.mask()
        image = image if mask is None else masked(image, mask)
    experts = expert_names(prefix) if map_name is MapName.expert else ()
    save_overlay(
        output,
        Layer(map_name.value, image, experts),
        background,
        kind=kind.value,
        axis=axis.value,
        at=at,
        space=space,
        title=f"{prefix.name}: {map_name}",
    )


def _with_ages(prefixes: list[Path], participants: Path) -> tuple[list[Path], list[float]]:
    """The scans whose participant has an age, and the ages."""
    from brainage.data.participants import parse_participants
    from brainage.errors import InputError

    people, _ = parse_participants(participants)
    people = people.dropna(subset="age")
    rows = people[["participant_id", "session_id", "age"]].itertuples(index=False, name=None)
    known = {(who, session): age for who, session, age in rows}
    found = []
    for prefix in prefixes:
        parts = prefix.name.split("_")
        session = next((part for part in parts if part.startswith("ses-")), "")
        age = known.get((parts[0], session), known.get((parts[0], "")))
        if age is not None:
            found.append((prefix, float(age)))
    if not found:
        raise InputError(participants, "no age of any scan with maps", "their participants", "check the ids")
    return [prefix for prefix, _ in found], [age for _, age in found]


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no list of numbers such as -20,0,20", param_hint=option
        ) from error
