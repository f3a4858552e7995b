"""A cohort run to its end through faults and a SIGKILL; throughput; memory of a scan.

    python benchmarks/cohort.py --out /tmp/c --data ../shared/data --json docs/results/cohort.json
    python benchmarks/cohort.py --out /tmp/t --throughput 8 --json docs/results/cohort_throughput.json
    python benchmarks/cohort.py --out /tmp/m --data ../shared/data --memory --json cohort_memory.json

The first builds a BIDS folder of ``whole_head`` and ``stripped_native`` (where ``--data`` has them) and small
simulated scans, spoils two scans, runs it undisturbed, then again into another folder where a worker is
killed, the whole run is killed with SIGKILL (with all its outputs half-way), a second run at the same time is
refused, and a last one goes on to the end. Everything but ``seconds`` in status.tsv must be equal, byte for
byte, and no scan that the killed run had finished may be done again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from rich.console import Console
from small_scans import small_scan, write_small_scans

from brainage.data.cohort import Scan
from brainage.files import sha256_of, write_json

PROGRAM = [sys.executable, "-c", "from brainage.cli.main import run; run()", "-q"]
MEASURE = """
import sys, resource
from pathlib import Path
from brainage.config import PreprocessRecipe
from brainage.data.cohort import scan_of
from brainage.preprocess.engine_cluster import OneScanAtATime
from brainage.preprocess.batch import preprocess_row
OneScanAtATime().setup(None)
row = preprocess_row(scan_of(Path(sys.argv[1])), Path(sys.argv[2]), PreprocessRecipe(), True)
print(row["status"], row["seconds"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def build(root: Path, data: Path | None, small: int) -> list[str]:
    """Write the dataset with two spoiled scans; its participants."""
    names = []
    for folder in ("whole_head", "stripped_native"):
        for scan in sorted((data / folder).glob("sub-*")) if data else ():
            shutil.copytree(scan, root / scan.name)
            names.append(scan.name)
    names += write_small_scans(root, small)
    rows = "".join(f"{name}\t50\n" for name in names)
    (root / "participants.tsv").write_text("participant_id\tage\n" + rows, encoding="utf-8")
    write_json(root / "dataset_description.json", {"Name": "a cohort for a test", "BIDSVersion": "1.10.0"})
    cut = root / names[-1] / "anat" / f"{names[-1]}_T1w.nii.gz"
    cut.write_bytes(cut.read_bytes()[:50_000])
    image = small_scan(500)
    values = np.asarray(image.dataobj)
    four = nib.Nifti1Image(np.stack([values, values], -1), image.affine)
    nib.save(four, root / names[-2] / "anat" / f"{names[-2]}_T1w.nii.gz")
    return names


def start(root: Path, out: Path, jobs: int) -> subprocess.Popen[str]:
    command = [*PROGRAM, "preprocess", str(root), str(out), "--jobs", str(jobs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(out: Path) -> dict[str, int]:
    """Modification times of the sidecars of volumes: what a run has finished."""
    found = out.glob("sub-*/**/*desc-preproc_T1w.json")
    return {path.name: path.stat().st_mtime_ns for path in found if not path.name.startswith(".")}


def wait_for(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    while len(finished(out)) < count:
        if process.poll() is not None:
            raise SystemExit(f"the run ended by itself: {process.communicate()}")
        time.sleep(0.1)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Dask's worker processes under a run: those of its children that have used most of the processor."""
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    ids = [int(child) for path in children for child in path.read_text().split()]

    def used(pid: int) -> int:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return 0
        return int(fields[11]) + int(fields[12])

    return sorted(ids, key=used, reverse=True)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def contents(out: Path) -> dict[str, str]:
    """Digests of all files; of status.tsv without the seconds."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if not path.is_file() or name.startswith(".brainage/"):
            continue
        found[name] = sha256_of(path)
        if name == "status.tsv":
            table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
            found[name] = table.drop(columns="seconds").to_csv(index=False)
    return found


def through_faults(options: argparse.Namespace) -> dict[str, object]:
    root, calm, rough = options.out / "bids", options.out / "undisturbed", options.out / "disturbed"
    names = build(root, options.data, options.small)
    begin = time.monotonic()
    first = start(root, calm, options.jobs)
    first.communicate()
    seconds = time.monotonic() - begin
    good = len(finished(calm))

    process = start(root, rough, options.jobs)
    wait_for(rough, max(1, good // 4), process)
    victims = workers_of(process)
    os.kill(victims[0], signal.SIGKILL)
    second = start(root, rough, options.jobs)
    _, said = second.communicate()
    wait_for(rough, max(2, good // 2), process)
    victims = workers_of(process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(map(alive, victims)) and time.monotonic() < deadline:
        time.sleep(0.2)
    orphans = sum(map(alive, victims))
    kept = finished(rough)
    waiting = int((pd.read_csv(rough / "status.tsv", sep="\t")["status"] == "waiting").sum())
    last = start(root, rough, options.jobs)
    last.communicate()
    after = finished(rough)
    before, now = contents(calm), contents(rough)
    differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    status = pd.read_csv(rough / "status.tsv", sep="\t")["status"].value_counts().to_dict()
    return {
        "scans": len(names),
        "jobs": options.jobs,
        "faults": "a truncated scan, a 4-D scan, a worker killed, then the run itself killed (SIGKILL)",
        "exit_codes": {"undisturbed": first.returncode, "second": second.returncode, "last": last.returncode},
        "second_run_said": said.strip().splitlines()[-1] if said.strip() else "",
        "finished_before_the_kill": len(kept),
        "waiting_in_status_after_the_kill": waiting,
        "worker_processes_left_after_the_kill": orphans,
        "done_again": sum(after.get(name) != when for name, when in kept.items()),
        "files_compared": len(before),
        "files_that_differ": differing,
        "status": {str(key): int(value) for key, value in status.items()},
        "undisturbed_seconds": round(seconds, 1),
        "seconds_a_scan_times_workers": round(seconds * options.jobs / max(good, 1), 1),
    }


def throughput(options: argparse.Namespace) -> dict[str, object]:
    """Scans a minute with one single-threaded worker and with several, in turn, without start-up; medians.

    Beside the engine, plain processes that take the next scan from a queue and know nothing of one another:
    what the machine itself loses when several of them work at once.
    """
    from brainage.config import PreprocessRecipe
    from brainage.data.cohort import find_scans
    from brainage.preprocess.batch import preprocess_row

    root = options.out / "throughput"
    write_small_scans(root, options.throughput)
    scans, _ = find_scans(root)
    result: dict[str, object] = {"scans": len(scans), "load_average": os.getloadavg()[0], "nice": os.nice(0)}
    rates: dict[tuple[str, int], list[float]] = {}
    for kind, means in (("engine", _by_the_engine), ("processes", _by_processes)) * options.rounds:
        for jobs in (1, options.jobs):
            begin = time.monotonic()
            with means(jobs) as work:
                # Imports and templates are loaded once a worker.
                warm, timed = (options.out / f"{phase}-{kind}{jobs}" for phase in ("warm", "timed"))
                work(scans[:jobs], preprocess_row, (warm, PreprocessRecipe(), True))
                result[f"start_seconds_{kind}_{jobs}"] = round(time.monotonic() - begin, 1)
                begin = time.monotonic()
                work(scans, preprocess_row, (timed, PreprocessRecipe(), True))
                rate = 60 * len(scans) / (time.monotonic() - begin)
            rates.setdefault((kind, jobs), []).append(round(rate, 2))
    for kind in ("engine", "processes"):
        several, one = (float(np.median(rates[kind, jobs])) for jobs in (options.jobs, 1))
        result[f"efficiency_{kind}"] = round(several / one / options.jobs, 3)
    return result | {f"scans_a_minute_{kind}_{jobs}": found for (kind, jobs), found in rates.items()}


Work = Callable[[Sequence[Scan], Callable[..., Any], tuple[Any, ...]], object]


@contextmanager
def _by_the_engine(jobs: int) -> Iterator[Work]:
    from brainage.preprocess.engine import run_isolated
    from brainage.preprocess.engine_cluster import Workers, connected

    with connected(Workers(jobs=jobs), jobs) as client:
        client.wait_for_workers(jobs)
        yield lambda scans, function, arguments: list(run_isolated(client, scans, function, arguments))


@contextmanager
def _by_processes(jobs: int) -> Iterator[Work]:
    from brainage.preprocess.engine_cluster import OneScanAtATime

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, OneScanAtATime().setup, (None,)) as pool:
        yield lambda scans, function, arguments: [
            done.result() for done in [pool.submit(function, scan, *arguments) for scan in scans]
        ]


def memory(options: argparse.Namespace) -> dict[str, object]:
    """Peak memory and seconds of one single-threaded process a scan, by voxels."""
    root = options.out / "memory"
    write_small_scans(root, 1)
    paths = sorted(root.rglob("*_T1w.nii.gz"))
    for folder in ("whole_head", "stripped_native"):
        paths += sorted((options.data / folder).rglob("*_T1w.nii*"))[:: 4 if folder == "whole_head" else 9]
    rows = []
    for path in paths:
        command = [sys.executable, "-c", MEASURE, str(path), str(root / "out")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        status, seconds, peak = done.stdout.split()[-3:]
        voxels = int(np.prod(nib.load(path).shape))
        rows.append(
            {"scan": path.name, "voxels": voxels, "status": status, "seconds": float(seconds),
             "peak_mib": round(int(peak) / 2**20)}
        )  # fmt: skip
    slope, base = np.polyfit([row["voxels"] for row in rows], [row["peak_mib"] for row in rows], 1)
    return {"scans": rows, "bytes_a_voxel": round(slope * 2**20, 1), "base_mib": round(base)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--out", type=Path, required=True, help="scratch folder")
    parser.add_argument("--small", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--throughput", type=int, default=0, metavar="SCANS")
    parser.add_argument("--rounds", type=int, default=2, help="of the throughput")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.memory:
        result = memory(options)
    elif options.throughput:
        result = throughput(options)
    else:
        result = through_faults(options)
    result["peak_mib_of_this_process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    Console(width=140).print(result)
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
