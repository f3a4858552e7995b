"""Bad inputs beside good ones: what is said, the row, the exit code, and whether the others suffer.

    python benchmarks/bad_inputs.py --out /tmp/bad --json docs/results/cohort_bad_inputs.json

Builds one BIDS folder with good simulated scans and every kind of bad one, runs ``brainage preprocess`` on
the good ones alone and then on all, compares the good ones' bytes, and runs each bad one by itself for its
exit code. Unusual disks (read-only, full) need root for a small tmpfs; without, the table says so.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from click.testing import Result
from rich.console import Console
from rich.table import Table
from small_scans import small_scan, write_small_scans
from typer.testing import CliRunner

from brainage.cli.main import app
from brainage.files import sha256_of, write_json

Maker = Callable[[Path], None]
GOOD = 3
# What goes through the whole chain; left out by --quick.
PROCESSED = (
    "sub-fewnan",
    "sub-negative",
    "sub-disagree",
    "sub-metres",
    "sub-link",
    "sub-twice",
    "sub-" + "x" * 180,
)


@lru_cache(maxsize=1)
def base() -> nib.Nifti1Image:
    """A good scan, to be spoiled."""
    return small_scan(100)


def saved(array: np.ndarray, change: Callable[[nib.Nifti1Image], None] = lambda image: None) -> Maker:
    """Writes an array with a header that was tampered with."""

    def make(path: Path) -> None:
        image = nib.Nifti1Image(array, base().affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(image.affine, 1)
        image.set_qform(image.affine, 1)
        change(image)
        nib.save(nib.Nifti1Image(array, None, image.header), path)

    return make


def raw_header(change: Callable[[np.ndarray], None], content: bytes = bytes(1000)) -> Maker:
    """Writes a header that nibabel would not write, and what follows it."""

    def make(path: Path) -> None:
        header = base().header.copy()
        change(header)
        with gzip.open(path, "wb") as file:
            file.write(header.binaryblock + bytes(4) + content)

    return make


def truncated(path: Path) -> None:
    nib.save(base(), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def bomb(path: Path) -> None:
    nib.save(base(), path)
    with gzip.open(path, "ab", compresslevel=1) as file:
        for _ in range(128):
            file.write(bytes(1 << 23))


def huge_nifti2(path: Path) -> None:
    header = nib.Nifti2Header()
    header.set_data_dtype(np.int16)
    header["dim"] = [3, 10**5, 10**5, 10**5, 1, 1, 1, 1]
    header["vox_offset"] = 544
    with gzip.open(path, "wb") as file:
        file.write(header.binaryblock + bytes(5000))


def zooms(factor: float, unit: str = "mm") -> Maker:
    array = np.asarray(base().dataobj)

    def change(image: nib.Nifti1Image) -> None:
        affine = image.affine.copy()
        affine[:3, :3] *= factor
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        image.header.set_xyzt_units(unit)

    return saved(array, change=change)


def sheared(path: Path) -> None:
    affine = base().affine.copy()
    affine[:3, 1] += 1.8 * affine[:3, 0]

    def change(image: nib.Nifti1Image) -> None:
        image.header["qform_code"] = 0

    def make(image: nib.Nifti1Image) -> None:
        image.set_sform(affine, 1)
        change(image)

    saved(np.asarray(base().dataobj), change=make)(path)


def disagreeing(image: nib.Nifti1Image) -> None:
    affine = image.affine.copy()
    affine[0] *= -1
    image.set_qform(affine, 1)


def negative_pixdim(header: nib.Nifti1Header) -> None:
    header["pixdim"][1:4] *= -1
    header["sform_code"] = 0
    header["qform_code"] = 1


def cases() -> dict[str, tuple[str, Maker]]:
    """Participant -> what is wrong with its scan, and how to make it."""
    array = np.asarray(base().dataobj)
    values = array.astype(np.float32)
    few, many = values.copy(), values.copy()
    few[40, 40, 40:45] = [np.nan, np.inf, -np.inf, np.nan, np.nan]
    many[:20] = np.nan
    colour = np.zeros(array.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    return {
        "sub-truncated": ("truncated gzip", truncated),
        "sub-bomb": ("gzip bomb: 1 GiB behind a good scan", bomb),
        "sub-huge": ("header of 10^5 x 10^5 x 10^5 voxels (NIfTI-2)", huge_nifti2),
        "sub-empty": ("zero bytes", lambda path: path.touch()),
        "sub-zerosize": ("a dimension of zero", raw_header(lambda h: h["dim"].__setitem__(2, 0))),
        "sub-2d": ("2-D", saved(array[:, :, 40])),
        "sub-4d": ("4-D", saved(np.stack([array, array], -1))),
        "sub-rgb": ("RGB", saved(colour)),
        "sub-complex": ("complex", saved(values.astype(np.complex64))),
        "sub-zeros": ("all zeros", saved(np.zeros_like(array))),
        "sub-fewnan": ("five voxels NaN or Inf", saved(few)),
        "sub-manynan": ("a fifth of the voxels NaN", saved(many)),
        "sub-negative": ("negative voxel sizes", raw_header(negative_pixdim, array.tobytes("F"))),
        "sub-hugevoxels": ("voxels of 200 mm", zooms(100)),
        "sub-sheared": ("sheared affine", sheared),
        "sub-disagree": ("qform and sform disagree (left-right)", saved(array, change=disagreeing)),
        "sub-microns": ("mm declared as microns", zooms(1, "micron")),
        "sub-metres": ("metres, declared as such", zooms(0.001, "meter")),
        "sub-noaffine": ("no affine at all", saved(array, change=no_affine)),
        "sub-text": ("a text file named .nii.gz", lambda path: path.write_text("not an image" * 99) and None),
    }


def no_affine(image: nib.Nifti1Image) -> None:
    image.header["sform_code"] = 0
    image.header["qform_code"] = 0


def build(root: Path) -> dict[str, str]:
    """Write the dataset; what is wrong with each participant."""
    names = write_small_scans(root, GOOD)
    told = {}
    for name, (what, make) in cases().items():
        path = root / name / "anat" / f"{name}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        make(path)
        told[name] = what

    def anat(name: str, what: str) -> Path:
        told[name] = what
        (root / name / "anat").mkdir(parents=True, exist_ok=True)
        return root / name / "anat"

    folder = anat("sub-Zo", "non-ASCII letters in the name (sub-Zoë)")
    shutil.copy(root / names[0] / "anat" / f"{names[0]}_T1w.nii.gz", folder / "sub-Zoë_T1w.nii.gz")
    folder = anat("sub-dotdot", "an id with ../ (as far as a file can have it: sub-..x)")
    shutil.copy(root / names[0] / "anat" / f"{names[0]}_T1w.nii.gz", folder / "sub-..x_T1w.nii.gz")
    long = "x" * 180
    folder = anat(f"sub-{long}", "a label of 180 letters (outputs' names just fit the disk)")
    nib.save(small_scan(101), folder / f"sub-{long}_T1w.nii.gz")
    longer = "x" * 230
    folder = anat(f"sub-{longer}", "a label of 230 letters: its outputs' names are too long for the disk")
    nib.save(small_scan(101), folder / f"sub-{longer}_T1w.nii.gz")
    folder = anat("sub-twice", "duplicate entities (.nii beside .nii.gz)")
    nib.save(small_scan(102), folder / "sub-twice_T1w.nii.gz")
    nib.save(small_scan(103), folder / "sub-twice_T1w.nii")
    outside = root.parent / "outside"
    outside.mkdir()
    nib.save(small_scan(104), outside / "secret.nii.gz")
    folder = anat("sub-link", "a link out of the dataset, to a scan")
    (folder / "sub-link_T1w.nii.gz").symlink_to(outside / "secret.nii.gz")
    folder = anat("sub-passwd", "a link out of the dataset, to no scan")
    (folder / "sub-passwd_T1w.nii").symlink_to("/etc/passwd")
    folder = anat("sub-annex", "a link to nothing (git-annex without content)")
    (folder / "sub-annex_T1w.nii.gz").symlink_to("../../.git/annex/objects/x")
    told["sub-absent"] = "a row in participants.tsv without a scan"
    told[names[1]] = "a good scan without a row in participants.tsv"
    told[names[2]] = "a good scan with two rows that differ"
    rows = [f"{name}\t50" for name in [names[0], names[2], *told] if name != names[1]]
    text = "\n".join(["participant_id\tage", *rows, f"{names[2]}\t51", "../../etc\t40"])
    (root / "participants.tsv").write_text(text + "\n", encoding="utf-8")
    description = {"Name": "bad inputs (simulated)", "BIDSVersion": "1.10.0"}
    write_json(root / "dataset_description.json", description)
    return told


def preprocess(root: Path, out: Path, *options: str, jobs: int = 1) -> Result:
    """``brainage preprocess`` in this process, whose imports are paid once."""
    return CliRunner().invoke(app, ["-q", "preprocess", str(root), str(out), "--jobs", str(jobs), *options])


def digests(out: Path, names: list[str]) -> dict[str, str]:
    """Digest of every output file of some participants."""
    files = [path for name in names for path in sorted((out / name).rglob("*")) if path.is_file()]
    return {path.relative_to(out).as_posix(): sha256_of(path) for path in files}


def status_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "status.tsv", sep="\t", dtype=str, keep_default_na=False)


def alone(root: Path, scratch: Path, name: str) -> int:
    """Exit code of a run on one participant."""
    return preprocess(root, scratch / "alone" / name[:40], "--participant-label", name).exit_code


def disks(root: Path, scratch: Path, good: list[str]) -> list[dict[str, object]]:
    """Runs onto a full and onto a read-only disk."""
    rows = []
    for what, options, remount in (
        ("full output disk (tmpfs of 300 kB)", "size=300k", False),
        ("read-only output disk", "size=8m", True),
    ):
        place = scratch / ("readonly" if remount else "full")
        place.mkdir(exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
            said = "no right to mount a tmpfs"
            rows.append({"case": what, "status": "not tried", "message": said, "exit": ""})
            continue
        try:
            if remount:
                subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
            labels = [part for name in good for part in ("--participant-label", name)]
            done = preprocess(root, place / "out", *labels)
            left = [*place.rglob("*desc-preproc*.json"), *place.rglob(".partial*")]
            rows.append(
                {
                    "case": what,
                    "status": "left half-written" if left else "nothing half-written",
                    "message": done.stderr.strip().splitlines()[-1].removeprefix("Error: "),
                    "exit": done.exit_code,
                }
            )
        finally:
            subprocess.run(["umount", str(place)], check=False)
    return rows


def dicom(scratch: Path) -> list[dict[str, object]]:
    """DICOM with missing slices, and with two T1 series."""
    file = Path(__file__).parent.parent / "tests" / "data" / "dicom_series.py"
    spec = importlib.util.spec_from_file_location("dicom_series", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    volume = np.random.default_rng(0).integers(0, 900, (60, 70, 60)).astype(np.int16)
    module.write_series(scratch / "dicom" / "gaps", volume, skip=(7, 8, 15))
    module.write_series(scratch / "dicom" / "two", volume, uid="1.2.3.1")
    module.write_series(scratch / "dicom" / "two", volume, "t1_space_gd", uid="1.2.3.2")
    rows = []
    for name, what in (("gaps", "DICOM with three slices missing"), ("two", "DICOM with two T1 series")):
        out = scratch / "alone" / f"dicom_{name}"
        done = preprocess(scratch / "dicom" / name, out)
        (row,) = status_of(out).to_dict("records")
        rows.append(
            {"case": what, "status": row["status"], "message": row["message"], "exit": done.exit_code}
        )
        for path in out.rglob("*"):
            if path.is_file() and b"Secret" in path.read_bytes():
                raise SystemExit(f"{path} holds the patient's name")
    return rows


def listed(root: Path, scratch: Path, good: str) -> list[dict[str, object]]:
    """A list whose id would lead out of the output folder."""
    table, out = root.parent / "list.csv", scratch / "alone" / "listed" / "out"
    scan = f"{root.name}/{good}/anat/{good}_T1w.nii.gz"
    table.write_text(f"path,id\n{scan},../../escaped\n", encoding="utf-8")
    done = preprocess(table, out)
    (row,) = status_of(out).to_dict("records")
    if list(scratch.rglob("*escaped*")):
        raise SystemExit("an id led out of the output folder")
    what = "an id with ../ in a list (CSV)"
    return [{"case": what, "status": row["status"], "message": row["message"], "exit": done.exit_code}]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="scratch folder; one of a stopped run to go on"
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="only what is refused on reading: messages")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    root, scratch = options.out / "bids", options.out
    # The same bytes each time, so that what a run that was stopped had finished is not done again.
    for old in (root, scratch / "outside", scratch / "alone", scratch / "dicom"):
        shutil.rmtree(old, ignore_errors=True)
    root.mkdir(parents=True)
    told = build(root)
    good = [f"sub-small{index:03d}" for index in range(1, GOOD + 1)]
    if options.quick:
        for name in (*good, *PROCESSED):
            shutil.rmtree(root / name)
            told.pop(name, None)
    labels = [part for name in good for part in ("--participant-label", name)]
    if not options.quick:
        preprocess(root, scratch / "clean", *labels, jobs=options.jobs)
    full = preprocess(root, scratch / "all", jobs=options.jobs)
    clean, beside = digests(scratch / "clean", good), digests(scratch / "all", good)
    same = clean == beside if clean else None
    status = status_of(scratch / "all")
    rows: list[dict[str, object]] = []
    for name, what in told.items():
        mine = status[status["path"].str.split("/").str[0] == name]
        for row in mine.to_dict("records"):
            # What succeeded among others is not done again to see 0.
            code = alone(root, scratch, name) if row["status"] == "failed" else 0
            rows.append({"case": what, "status": row["status"], "message": row["message"], "exit": code})
        if mine.empty:
            rows.append({"case": what, "status": "NO ROW", "message": "", "exit": ""})
    rows += listed(root, scratch, "sub-truncated" if options.quick else good[0])
    rows += dicom(scratch)
    rows += [] if options.quick else disks(root, scratch, good)
    table = Table(title="Bad inputs")
    for heading in ("case", "status", "exit alone", "message"):
        table.add_column(heading)
    for row in rows:
        message = re.sub("x{100,}", "x...x", str(row["message"]))
        row["message"] = message
        table.add_row(str(row["case"]), str(row["status"]), str(row["exit"]), message)
    console = Console(width=180)
    console.print(table)
    left = [path.name for path in (scratch / "all").rglob(".partial*")]
    summary = {
        "good_scans_byte_identical": same,
        "good_files_compared": len(clean),
        "exit_code_of_the_run_on_all": full.exit_code,
        "half_written_files": left,
    }
    console.print(json.dumps(summary))
    if options.json:
        write_json(options.json, {"summary": summary, "cases": rows})


if __name__ == "__main__":
    main()
