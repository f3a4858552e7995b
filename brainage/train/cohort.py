"""The scans that a training learns from, out of a folder that ``brainage preprocess`` wrote."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch

from brainage.config import BrainAgeRecipe
from brainage.data.datasets import AgedScan
from brainage.data.participants import read_participants
from brainage.data.true_ages import TrueAges
from brainage.errors import InputError
from brainage.preprocess.chain import fingerprint
from brainage.preprocess.outputs import find_preprocessed, read_preprocessed

logger = logging.getLogger("brainage")


@dataclass(frozen=True, eq=False)
class Cohort:
    """Scans with ages, and what has to be remembered of where they came from.

    Attributes:
        scans: to learn from.
        fingerprint: SHA-256 over ids, ages and the preprocessed volumes.
        name: of the folder.
    """

    scans: tuple[AgedScan, ...]
    fingerprint: str
    name: str


def load_cohort(
    data: str | PathLike[str], participants: str | PathLike[str] | None, recipe: BrainAgeRecipe
) -> Cohort:
    """Read every preprocessed scan whose subject has an age and fits the recipe's ``include``.

    Args:
        data: folder that ``brainage preprocess`` wrote.
        participants: its ``participants.tsv``; by default the one in ``data``.
        recipe: what to include, and the preprocessing that the scans must have gone through.

    Raises:
        InputError: no scan, no age, a column that the table lacks, or another preprocessing.
    """
    data = Path(data)
    table_path = Path(participants) if participants else data / "participants.tsv"
    people = read_participants(table_path)
    for column, value in recipe.include.items():
        if column not in people:
            raise InputError(
                table_path,
                f"no column {column}",
                "the columns that the recipe's include names",
                "add the column, or remove it from include",
            )
        people = people[people[column] == value]
    ages = TrueAges(people)
    wanted = fingerprint(recipe.preprocess)
    digest = hashlib.sha256()
    scans, without_age = [], 0
    for path in find_preprocessed(data):
        scan = read_preprocessed(path)
        age = ages.of(scan.participant_id, scan.session_id)
        if age is None:
            without_age += 1
            continue
        if scan.fingerprint != wanted:
            raise InputError(
                path,
                "a volume of another preprocessing than the recipe's",
                f"fingerprint {wanted}",
                "run brainage preprocess again with this version and the recipe's settings",
            )
        volume = scan.volume()
        digest.update(f"{scan.participant_id} {scan.session_id} {age:g}".encode())
        digest.update(volume.tobytes())
        tensor = torch.from_numpy(volume).half()[None]
        scans.append(AgedScan(scan.participant_id, scan.session_id, age, tensor))
    if not scans:
        raise InputError(
            data,
            f"no preprocessed scan of a subject with an age ({without_age} without)",
            "what brainage preprocess wrote, and participants.tsv with ages",
            "run brainage preprocess first, or check the ids and the recipe's include",
        )
    if without_age:
        logger.info("%d scans left out: no age, or not included by the recipe", without_age)
    return Cohort(tuple(scans), digest.hexdigest(), data.resolve().name)
