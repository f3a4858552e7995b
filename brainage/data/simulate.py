"""A simulated BIDS cohort: the template's brain, aged by set rates, as different scanners might see it.

Skull-stripped, since the template that nilearn carries has no skull. Everything written says "simulated".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from brainage import __version__
from brainage.data.aging import RATES, REFERENCE_AGE
from brainage.data.simulated_scan import SPREAD, WHITE_DARKENS, simulate_scan
from brainage.errors import ConfigError, InputError
from brainage.files import replacing, write_json

_README = """Simulated by brainage; no person's data.

The ICBM152 template brain that nilearn carries, deformed so that its regions age at set rates, with
individual variation, bias field, noise, and varied voxel size and orientation. Skull-stripped.
What is true of each scan: simulation_truth.tsv and simulation_truth.json.
"""

YOUNGEST, OLDEST = 20.0, 85.0


def simulate_cohort(
    out: str | PathLike[str],
    subjects: int,
    seed: int = 0,
    rates: Mapping[str, float] = RATES,
    done: Callable[[int], None] = lambda count: None,
) -> Path:
    """Write a BIDS folder of simulated scans with the truth about them; the same for the same arguments.

    Args:
        out: folder, new, empty, or an earlier simulated cohort of the same subjects.
        subjects: how many; their ages cover 20 to 85 years evenly.
        seed: of all that is random.
        rates: as ``RATES``.
        done: called with the number of finished scans.

    Returns:
        ``out`` as a path.
    """
    if subjects < 1:
        raise ConfigError("subjects", subjects, "must be at least 1")
    out = Path(out)
    width = max(2, len(str(subjects)))
    people = _people(subjects, seed)
    people.insert(0, "participant_id", [f"sub-{i:0{width}d}" for i in range(1, subjects + 1)])
    _refuse_other_content(out, set(people["participant_id"]))
    _describe(out, people, seed, rates)
    truths = []
    rows = zip(people["participant_id"], people["age"], people["sex"], strict=True)
    for index, (name, age, sex) in enumerate(rows):
        scan = simulate_scan(float(age), str(sex), index, seed, rates)
        folder = out / str(name) / "anat"
        with replacing(folder / f"{name}_T1w.nii.gz") as partial:
            nib.save(scan.image, partial)
        write_json(
            folder / f"{name}_T1w.json",
            {"Modality": "MR", "Simulated": True, "SkullStripped": True},
        )
        truths.append(scan.truth.assign(participant_id=str(name)))
        done(index + 1)
    table = pd.concat(truths)
    table = table[["participant_id", *table.columns.drop("participant_id")]]
    with replacing(out / "simulation_truth.tsv") as partial:
        table.to_csv(partial, sep="\t", index=False, float_format="%.6g")
    return out


def _people(subjects: int, seed: int) -> pd.DataFrame:
    """Ages spread evenly over the range, in random order, and sexes."""
    rng = np.random.default_rng([seed])
    steps = (np.arange(subjects) + rng.uniform(0.1, 0.9, subjects)) / subjects
    ages = np.round(YOUNGEST + (OLDEST - YOUNGEST) * rng.permutation(steps), 1)
    return pd.DataFrame({"age": ages, "sex": rng.permutation(np.resize(["F", "M"], subjects))})


def _refuse_other_content(out: Path, ids: set[str]) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(out, "a file", "a folder to write the cohort to", "choose another path")
    description = out / "dataset_description.json"
    ours = description.is_file() and '"Simulated": true' in description.read_text("utf-8", errors="replace")
    if any(out.iterdir()) and not ours:
        raise InputError(out, "a folder with other content", "a new or an empty one", "choose another path")
    others = sorted({path.name for path in out.glob("sub-*")} - ids)
    if others:
        raise InputError(
            out, f"{others[0]} of another simulated cohort", "a new or an empty folder", "choose another path"
        )


def _describe(out: Path, people: pd.DataFrame, seed: int, rates: Mapping[str, float]) -> None:
    """The files of the cohort that are no scans."""
    generator = {"Name": "brainage simulate", "Version": __version__}
    write_json(
        out / "dataset_description.json",
        {
            "Name": "Simulated cohort (no person's data): ICBM152 anatomy, aged by set rates",
            "BIDSVersion": "1.10.0",
            "DatasetType": "raw",
            "Simulated": True,
            "GeneratedBy": [{**generator, "Description": f"{len(people)} subjects, seed {seed}"}],
            "ReferencesAndLinks": ["doi:10.1016/j.neuroimage.2010.07.033"],
        },
    )
    write_json(
        out / "participants.json",
        {
            "age": {"Description": "simulated age", "Units": "year"},
            "sex": {"Description": "simulated sex", "Levels": {"F": "female", "M": "male"}},
        },
    )
    write_json(
        out / "simulation_truth.json",
        {
            "Simulated": True,
            "Seed": seed,
            "ReferenceAge": REFERENCE_AGE,
            "LogVolumeChangePerYear": dict(rates),
            "WhiteMatterDarkeningPerYear": WHITE_DARKENS,
            "PersonalSpread": SPREAD,
            "GeneratedBy": generator,
            "Columns": {
                "region": "region of the built-in atlas; sulcal fluid: all of it",
                "set_rate": "change of log volume a year",
                "set_change": "log volume, by age",
                "own_change": "log volume, of the person",
                "template_ml": "volume in the template; lobes without the fluid in their sulci",
                "true_ml": "volume in the scan, in template space (before the person's overall size)",
            },
        },
    )
    texts = {"README": _README, ".bidsignore": "simulation_truth.*\n"}
    for name, text in texts.items():
        with replacing(out / name) as partial:
            partial.write_text(text, "utf-8")
    with replacing(out / "participants.tsv") as partial:
        people.to_csv(partial, sep="\t", index=False)
