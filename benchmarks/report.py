"""Seconds and bytes of what a clinician is given: maps, mosaic, page of a scan, page of a cohort.

    python benchmarks/report.py --data ../shared/data --json docs/results/report.json

One raw scan of ``whole_head`` is preprocessed and predicted once. Then each step is timed by itself, warm, as
the median of --rounds: on the clock, and in this process's own seconds, which other work changes less. The
cohort's page is that scan repeated.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from brainage.cli.predict import predict
from brainage.files import write_json
from brainage.models.weights import load_trained
from brainage.predict.maps import write_maps
from brainage.predict.predictor import predict_scan
from brainage.preprocess.outputs import find_preprocessed, read_preprocessed
from brainage.report.content import collect_cohort
from brainage.report.html import write_report
from brainage.report.scan_page import write_scan_page
from brainage.resources import resource


def timed(rounds: int, function: Callable[[], Any]) -> dict[str, float]:
    """Median seconds over ``rounds`` calls after one to warm up: on the clock, and of this process."""
    function()
    wall, own = [], []
    for _ in range(rounds):
        start, start_own = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - start)
        own.append(time.process_time() - start_own)
    return {"seconds": statistics.median(wall), "cpu_seconds": statistics.median(own)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds whole_head")
    parser.add_argument("--scan", default="LH01", help="participant label")
    parser.add_argument("--cohort", type=int, default=500, help="rows of the cohort's page")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    raw = options.data / "whole_head" / f"sub-{options.scan}" / "anat" / f"sub-{options.scan}_T1w.nii.gz"
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        ages, maps = work / "ages.csv", work / "maps"
        predict([raw], ages, maps=maps, derivatives=work / "derivatives")
        trained = load_trained(resource("models/shipped/ermoe_ba.safetensors"))
        scan = read_preprocessed(find_preprocessed(work / "derivatives")[0])
        prediction = predict_scan(trained, scan.volume())
        prefix = work / "again" / scan.participant_id
        rows["maps and tables"] = timed(options.rounds, lambda: write_maps(prefix, trained, prediction, scan))
        rows["the same, every layer in native space"] = timed(
            1, lambda: write_maps(prefix, trained, prediction, scan, everything=True)
        )
        cohort = collect_cohort(ages, None, maps)
        page = work / "scan.html"
        rows["page of the scan"] = timed(
            options.rounds, lambda: write_scan_page(page, cohort.scans[0], cohort)
        ) | {"bytes": page.stat().st_size}
        table = pd.read_csv(ages, dtype=str, keep_default_na=False)
        many = pd.concat([table] * options.cohort, ignore_index=True)
        many["path"] = [f"{number}/{raw.name}" for number in range(len(many))]
        many.to_csv(work / "many.csv", index=False)
        whole = work / "cohort.html"
        rows[f"page of a cohort, {options.cohort} scans"] = timed(
            1, lambda: write_report(whole, work / "many.csv", maps=maps)
        ) | {"bytes": whole.stat().st_size}
    shown = Table(title=f"sub-{options.scan}, {' x '.join(map(str, scan.native_shape))} voxels")
    for heading in ("", "seconds", "own seconds", "MB"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for name, row in rows.items():
        size = f"{row['bytes'] / 1e6:.2f}" if "bytes" in row else ""
        shown.add_row(name, f"{row['seconds']:.2f}", f"{row['cpu_seconds']:.2f}", size)
    Console().print(shown)
    if options.json:
        write_json(options.json, {"scan": options.scan, "shape": list(scan.native_shape), "rows": rows})


if __name__ == "__main__":
    main()
