"""One page for one scan: its age, how far to trust it, and where on the anatomy it comes from."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from brainage.errors import InputError
from brainage.predict.reference import AgeReference
from brainage.report.content import Cohort, ScanEntry
from brainage.report.curve import CurvePoint, age_curve
from brainage.report.mosaic import EXPERT_COLOURS
from brainage.report.page import render_page
from brainage.report.qc_content import COLUMNS
from brainage.report.regional_age import regional_table
from brainage.report.scan_files import ScanImages
from brainage.report.viewer import ViewerData, niivue_base64, viewer_data

logger = logging.getLogger("brainage")


def write_scan_page(path: Path, scan: ScanEntry, cohort: Cohort, *, simulated: bool = False) -> None:
    """Write the page of one scan: a single file that needs no network and reads without JavaScript.

    Args:
        path: the HTML file.
        scan: of ``cohort``.
        cohort: of the ages file that the scan is in, for the versions.
        simulated: marks the page as made from a simulated scan.
    """
    facts: Mapping[str, Any] = scan.facts or {}
    problems = list(scan.problems)
    viewer = None
    if scan.predicted_age is not None and scan.prefix is not None:
        try:
            viewer = viewer_data(ScanImages(scan.prefix, scan.path))
        except InputError as error:
            logger.warning("No viewer for %s: %s", scan.name, error)
            problems.append(str(error))
    elif scan.predicted_age is not None:
        problems.append("no maps of this scan were found; run brainage predict with --maps.")
    regional = None
    if scan.predicted_age is not None:
        try:
            regional = regional_table(facts, scan.predicted_age if scan.age is None else scan.age)
        except InputError as error:
            problems.append(str(error))
    gap = gap_reference(facts)
    bias = (facts.get("model") or {}).get("age_bias")
    expected = percentile = None
    if bias is not None and scan.age is not None:
        expected = (bias["slope"] - 1) * scan.age + bias["intercept"]
    if gap is not None and scan.gap is not None and scan.age is not None:
        percentile = gap.percent_below(scan.gap, scan.age)
    known = any(row.percentile is not None for row in scan.regions)
    render_page(
        path,
        "scan.html.j2",
        title=f"Brain age report: {scan.name}",
        simulated=simulated,
        scan=scan,
        level=_level(scan),
        scale=cohort.scale,
        corrected=None if expected is None or scan.gap is None else scan.gap - expected,
        bias_at_age=expected,
        percentile=percentile,
        curve=scan_curve([scan], facts),
        reasons=split_reasons(scan.message),
        baseline=facts.get("baseline"),
        regional_experts=facts.get("regional_experts", True),
        reference_age=None if not known else scan.predicted_age if scan.age is None else scan.age,
        reference_subjects=_reference_subjects(facts),
        regional=regional,
        quality=quality_figures(scan.quality, facts),
        problems=problems,
        viewer=viewer,
        viewer_config=_config(viewer, facts, scan) if viewer else None,
        niivue=niivue_base64() if viewer else "",
        experts=expert_colours(facts),
        model=facts.get("model"),
        versions=cohort.versions,
    )


def quality_figures(quality: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """The figures that a reader can use with what they mean, and the others by the names of their columns."""
    known = {name.replace("_", " "): meaning for name, (meaning, _) in COLUMNS.items()}
    limit = (facts.get("model") or {}).get("unusual_limit")
    named: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for name, value in quality.items():
        if name == "unusual":
            beside = f" (95 % of the training scans are below {limit:.2f})" if limit is not None else ""
            named.insert(0, ("Distance from the training scans", f"{float(value):.2f}{beside}"))
        elif name in known:
            named.append((known[name], value))
        else:
            others.append((name, value))
    return {"named": named, "others": others}


def split_reasons(message: str) -> list[str]:
    """The clauses of a message, which semicolons part; those within brackets belong to a clause.

    What an error expected, and what to do, stay together as the last one.
    """
    found, mark, remedy = message.partition("; expected ")
    reasons = [reason for reason in re.split(r";\s+(?![^(]*\))", found) if reason]
    return [*reasons, f"expected {remedy}"] if mark else reasons


def scan_curve(scans: list[ScanEntry], facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """The drawing of predicted against chronological age; None without ages or without a trained model."""
    model = facts.get("model") or {}
    points = [
        CurvePoint(scan.age, scan.predicted_age, scan.interval)
        for scan in scans
        if scan.age is not None and scan.predicted_age is not None
    ]
    if not points or not model.get("age_bias") or not model.get("age_range"):
        return None
    intervals = [scan.interval for scan in scans if scan.interval is not None]
    half = max(((high - low) / 2 for low, high in intervals), default=0.0)
    bias = model["age_bias"]
    low, high = model["age_range"]
    return age_curve(points, (low, high), gap_reference(facts), (bias["slope"], bias["intercept"]), half)


def gap_reference(facts: Mapping[str, Any]) -> AgeReference | None:
    """The gaps of healthy people by age, where the model knows them."""
    stored = facts.get("gap_reference")
    return AgeReference.from_json(stored) if stored else None


def expert_colours(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and colour of each expert, in order."""
    names = [str(name).replace("_", " ") for name in facts.get("experts", [])]
    return [(name, EXPERT_COLOURS[place % len(EXPERT_COLOURS)]) for place, name in enumerate(names)]


def _config(viewer: ViewerData, facts: Mapping[str, Any], scan: ScanEntry) -> dict[str, Any]:
    """What the viewer's script needs beside the volumes."""
    colours = expert_colours(facts)
    rgb = np.rint(255 * np.array([(0.0, 0.0, 0.0), *(to_rgb(colour) for _, colour in colours)])).astype(int)
    native = scan.prefix is not None and ScanImages(scan.prefix, scan.path).space == "T1w"
    to_mni = facts.get("native_to_mni") if native else None
    return {
        "limit": viewer.limit,
        "to_mni": to_mni or np.eye(4).tolist(),
        "regions": [_region_name(row) for row in facts.get("regions", [])],
        "expert_names": [name for name, _ in colours],
        "experts": {
            "R": rgb[:, 0].tolist(),
            "G": rgb[:, 1].tolist(),
            "B": rgb[:, 2].tolist(),
            "A": [0] + [255] * len(colours),
            "I": list(range(len(colours) + 1)),
            "labels": ["", *(name for name, _ in colours)],
        },
    }


def _region_name(row: Mapping[str, Any]) -> str:
    side = {"L": "left ", "R": "right "}.get(str(row.get("hemisphere")), "")
    name = str(row.get("region", "")).replace("_", " ")
    return side + (name.removesuffix(f" {row.get('hemisphere')}") if side else name)


def _level(scan: ScanEntry) -> str:
    return "90 %" if scan.level is None else f"{100 * scan.level:.0f} %"


def _reference_subjects(facts: Mapping[str, Any]) -> int:
    stored = [facts.get("gap_reference"), *(row.get("healthy") for row in facts.get("regions", []))]
    return next((int(reference["subjects"]) for reference in stored if reference), 0)
