"""A run on an output folder: its table at every moment, what ends it, and what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainage.anatomy.grid import MODEL_GRID
from brainage.config import PreprocessRecipe
from brainage.data.listing import list_scans
from brainage.errors import ConfigError, InputError
from brainage.preprocess import batch
from brainage.preprocess.engine_cluster import Workers
from brainage.preprocess.engine_plan import plan_run
from brainage.preprocess.engine_run import RunOptions, narrowed, preprocess_listing
from brainage.preprocess.lock import locked
from brainage.preprocess.outputs import write_outputs
from brainage.preprocess.provenance import software_versions

ONE = RunOptions(Workers(jobs=1))
RECIPE = PreprocessRecipe()


@pytest.fixture
def bids(tmp_path):
    """Three participants, one of them with two sessions; empty files, since nothing reads them."""
    root = tmp_path / "bids"
    for name in (
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-2/ses-a/anat/sub-2_ses-a_T1w.nii.gz",
        "sub-2/ses-b/anat/sub-2_ses-b_T1w.nii.gz",
        "sub-3/anat/sub-3_T1w.nii.gz",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.fixture
def pretend(monkeypatch):
    """Preprocessing that writes nothing; ``rows`` says what becomes of a participant."""
    rows: dict[str, dict[str, str]] = {}

    def row(scan, out_dir, recipe, force=False):
        return batch._row(scan) | {"status": "ok", "seconds": "2.0"} | rows.get(scan.participant_id, {})

    monkeypatch.setattr(batch, "preprocess_row", row)
    return rows


def table(out):
    rows = pd.read_csv(out / "status.tsv", sep="\t", keep_default_na=False)
    return dict(zip(rows["path"].str.rpartition("/")[2], rows["status"], strict=True))


def test_the_table_tells_at_every_moment_what_is_done(bids, tmp_path, pretend):
    out = tmp_path / "out"
    seen = []
    for _ in preprocess_listing(list_scans([bids]), out, RECIPE, ONE):
        seen.append(list(table(out).values()))
    assert seen == [["ok"] * done + ["waiting"] * (4 - done) for done in range(1, 5)]
    assert (out / ".bidsignore").read_text("utf-8").splitlines()[:2] == ["status.tsv", ".brainage"]
    # A later run about one participant keeps the rows of the others.
    pretend["sub-1"] = {"status": "failed"}
    listing = narrowed(list_scans([bids]), ["1"], [])
    list(preprocess_listing(listing, out, RECIPE, RunOptions(Workers(jobs=1), participants=("sub-1",))))
    assert list(table(out).values()) == ["failed", "ok", "ok", "ok"]


def test_participants_without_a_scan_and_scans_without_a_row(bids, tmp_path, pretend):
    people = "participant_id\tage\nsub-1\t50\nsub-1\t51\nsub-2\t89+\nsub-9\t40\n"
    (bids / "participants.tsv").write_text(people)
    rows = list(preprocess_listing(list_scans([bids]), tmp_path / "out", RECIPE, ONE))
    said = {row["participant_id"]: (row["status"], row["message"]) for row in rows}
    assert said["sub-9"] == ("missing", "sub-9: in participants.tsv but without a T1w scan")
    assert said["sub-3"] == ("ok", "no row in participants.tsv, so no age")
    assert "rows that differ" in said["sub-1"][1]
    assert "top-coded" in said["sub-2"][1]
    assert (tmp_path / "out" / "participants.tsv").read_text("utf-8") == people
    assert table(tmp_path / "out")["sub-9"] == "missing"


def test_ages_of_a_list_travel_with_the_volumes(bids, tmp_path, pretend):
    listed = tmp_path / "scans.csv"
    listed.write_text(
        "path,id,session,age,sex\n"
        "bids/sub-1/anat/sub-1_T1w.nii.gz,A,,P40Y,F\n"
        "bids/sub-2/ses-a/anat/sub-2_ses-a_T1w.nii.gz,B,1,50,M\n"
        "bids/sub-2/ses-b/anat/sub-2_ses-b_T1w.nii.gz,B,2,52,M\n"
    )
    out = tmp_path / "out"
    list(preprocess_listing(list_scans([listed]), out, RECIPE, ONE))
    from brainage.data.participants import read_participants

    people = read_participants(out / "participants.tsv")
    ages = dict(zip(zip(people["participant_id"], people["session_id"]), people["age"]))  # noqa: B905
    assert {key: age for key, age in ages.items() if age == age} == {
        ("sub-A", ""): 40,
        ("sub-B", "ses-1"): 50,
        ("sub-B", "ses-2"): 52,
    }
    assert people["sex"].tolist() == ["female", "male", "male"]


def test_a_full_disk_ends_the_run_with_a_sentence(bids, tmp_path, pretend):
    pretend["sub-2"] = {"status": "failed", batch.STOP: "no space left"}
    with pytest.raises(InputError, match=r"cannot be written .*finished scans are kept"):
        list(preprocess_listing(list_scans([bids]), tmp_path / "out", RECIPE, ONE))
    assert list(table(tmp_path / "out").values()) == ["ok", "failed", "waiting", "waiting"]


def test_stopping_at_the_first_failure(bids, tmp_path, pretend):
    pretend["sub-2"] = {"status": "failed"}
    options = RunOptions(Workers(jobs=1), stop_on_first_crash=True)
    rows = list(preprocess_listing(list_scans([bids]), tmp_path / "out", RECIPE, options))
    assert [row["status"] for row in rows] == ["ok", "failed"]


def test_a_second_run_is_refused_and_writes_nothing(bids, tmp_path, pretend):
    out = tmp_path / "out"
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom brainage.preprocess.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another run at work"):
            list(preprocess_listing(list_scans([bids]), out, RECIPE, ONE))
        assert not (out / "status.tsv").exists()
    finally:
        holder.kill()
        holder.communicate()


def test_halves_of_a_killed_run_are_cleared_away(bids, tmp_path, pretend):
    out = tmp_path / "out"
    (out / "sub-1" / "anat").mkdir(parents=True)
    for name in (".partial-status.tsv", "sub-1/anat/.partial-x.nii.gz"):
        (out / name).write_text("half")
    list(preprocess_listing(list_scans([bids]), out, RECIPE, ONE))
    assert list(out.rglob(".partial-*")) == []


def test_labels_narrow_a_listing(bids):
    listing = list_scans([bids])
    assert [scan.session_id for scan in narrowed(listing, ["sub-2"], ["b"]).scans] == ["ses-b"]
    assert len(narrowed(listing, [], ["a", "b"]).scans) == 2
    with pytest.raises(ConfigError, match="--session-label = 'ses-x'"):
        narrowed(listing, [], ["x"])


def written(bids, out, recipe=RECIPE):
    """All scans of the folder as if preprocessed."""
    from brainage.preprocess.chain import fingerprint
    from brainage.preprocess.own_files import source_digest

    listing = list_scans([bids])
    volume = np.zeros(MODEL_GRID.shape, np.float32)
    volume[20:40, 20:40, 20:40] = 1
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[3:6, 3:6, 3:6] = 1
    for scan in listing.scans:
        facts = {
            "Sources": [scan.path.relative_to(bids).as_posix()],
            "SpatialReference": "MNI152NLin2009aSym",
            "SkullStripped": True,
            "Versions": software_versions(),
            "SourceSHA256": source_digest(scan, recipe),
            "Fingerprint": fingerprint(recipe),
            "Stripped": True,
            "NativeToMNI": np.eye(4).tolist(),
            "NativeShape": [10, 10, 10],
            "NativeAffine": np.diag([2.0, 2, 2, 1]).tolist(),
            "QC": {"scale": 1.0},
            "Warnings": [],
        }
        write_outputs(scan, out, volume, mask, facts)
    return listing


def test_a_plan_tells_what_is_done_and_writes_nothing(bids, tmp_path):
    out = tmp_path / "out"
    listing = written(bids, out)
    (bids / "sub-3" / "anat" / "sub-3_T1w.nii.gz").write_bytes(b"another")
    before = sorted(out.rglob("*"))
    plan = plan_run(listing, out, RECIPE, Workers(jobs=2), force=False)
    assert (plan.todo, plan.done, plan.refused, plan.jobs) == (1, 3, 0, 1)
    assert dict(plan.lines)["sub-3/anat/sub-3_T1w.nii.gz"] == "to do"
    assert plan.seconds > 0
    assert plan_run(listing, out, RECIPE, Workers(jobs=2), force=True).todo == 4
    assert sorted(out.rglob("*")) == before


def test_a_plan_notices_an_own_mask_that_changed_or_is_gone(bids, tmp_path):
    recipe = PreprocessRecipe(mask="{name}_mask.nii.gz")
    masks = [path.with_name(path.name.replace("T1w", "mask")) for path in sorted(bids.rglob("*T1w*"))]
    for path in masks:
        path.write_bytes(b"drawn by hand")
    listing = written(bids, tmp_path / "out", recipe)
    assert plan_run(listing, tmp_path / "out", recipe, Workers(jobs=2), force=False).done == 4
    masks[0].write_bytes(b"drawn again")
    masks[-1].unlink()
    plan = plan_run(listing, tmp_path / "out", recipe, Workers(jobs=2), force=False)
    assert (plan.todo, plan.done, plan.refused) == (1, 2, 1)
    said = dict(plan.lines)
    assert said["sub-1/anat/sub-1_T1w.nii.gz"] == "to do"
    assert "no file sub-3_mask.nii.gz" in said["sub-3/anat/sub-3_T1w.nii.gz"]


def bids_validator() -> str | None:
    """The validator of PyPI (bids-validator-deno) or npm (bids-validator), wherever it is."""
    beside = Path(sys.executable).with_name("bids-validator-deno")
    names = (os.environ.get("BIDS_VALIDATOR", ""), str(beside), "bids-validator-deno", "bids-validator")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def test_the_bids_validator_accepts_the_outputs(bids, tmp_path, pretend):
    program = bids_validator()
    if program is None:
        pytest.skip("no BIDS validator here: pip install 'brainage[bids]', or name one in BIDS_VALIDATOR")
    (bids / "participants.tsv").write_text("participant_id\tage\nsub-1\t50\nsub-2\t60\nsub-3\t70\n")
    out = tmp_path / "out"
    listing = written(bids, out)
    list(preprocess_listing(listing, out, RECIPE, ONE))
    (out / "maps").mkdir()
    (out / "maps" / "x.nii.gz").touch()
    done = subprocess.run([program, str(out), "--json"], capture_output=True, text=True, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    errors = [issue for issue in issues if issue["severity"] == "error"]
    assert errors == []
    assert done.returncode == 0


def test_the_lock_is_held_until_a_run_ends_and_no_longer(bids, tmp_path, pretend):
    out = tmp_path / "out"
    run = preprocess_listing(list_scans([bids]), out, RECIPE, ONE)
    next(run)
    with pytest.raises(InputError, match=f"another run at work on it .process {os.getpid()} "), locked(out):
        pass
    run.close()
    (out / ".brainage" / "run.lock").write_text("somebody")
    with locked(out):
        assert (out / ".brainage" / "run.lock").read_text().startswith(f"process {os.getpid()} on ")
