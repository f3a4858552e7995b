"""Simulated people in whom some regions aged and the others did not: what a map should find.

Each person is made three ways with the same shape, pose, bias field and scanner: young everywhere; aged in a
random half of the regions, each side by itself; and aged, but with one region after the other made young
again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from brainage.anatomy.atlas import built_in
from brainage.data.aging import RATES, REFERENCE_AGE, SULCAL, base_name, sulci_of
from brainage.data.simulated_scan import simulate_scan
from brainage.errors import InputError
from brainage.files import replacing, write_json
from brainage.preprocess.chain import CHAIN_VERSION
from brainage.preprocess.simulated import volume_of

YOUNG, AGED = 30.0, 70.0
# The rates say what a region's volume does; this age only sets how much white matter has darkened, which is
# the same in all scans.
_TOLD = REFERENCE_AGE + 10.0


@dataclass(frozen=True, eq=False)
class AgedPerson:
    """One simulated person.

    Attributes:
        young: normalised volume (80, 96, 80) with all regions at ``YOUNG`` years.
        aged: the same with the regions ``aged_regions`` at ``AGED``.
        aged_regions: names as in the built-in atlas.
        restored: ``aged`` with one of its regions young again, by name; empty where not asked for.
    """

    young: np.ndarray
    aged: np.ndarray
    aged_regions: tuple[str, ...]
    restored: Mapping[str, np.ndarray] = field(default_factory=dict)


def aging_names() -> tuple[str, ...]:
    """The regions of the built-in atlas that change with age in the simulation; all but the brainstem."""
    names = built_in().regions.sort_values("index")["name"]
    return tuple(name for name in names if RATES.get(base_name(name), 0.0) != 0)


def simulated_people(
    folder: Path,
    people: int,
    restored: int,
    seed: int = 0,
    done: Callable[[int, int], None] = lambda count, total: None,
) -> Iterator[AgedPerson]:
    """People with known aging; volumes that ``folder`` already holds are not simulated again.

    Args:
        folder: keeps the volumes; they do not depend on a model.
        people: how many.
        restored: for how many of them, the first ones, each aged region is made young again.
        seed: of all that is random.
        done: called with the number of volumes there are, and of all.

    Raises:
        InputError: ``folder`` holds the volumes of another simulation.
    """
    _claim(folder, seed)
    names = aging_names()
    chosen = [_aged_names(names, seed, person) for person in range(people)]
    total = 2 * people + sum(map(len, chosen[:restored]))
    count = 0

    def volume(person: int, aged: tuple[str, ...], ending: str) -> np.ndarray:
        nonlocal count
        found = _volume(folder / f"person-{person:03d}_{ending}.npz", person, aged, seed)
        count += 1
        done(count, total)
        return found

    for person, aged in enumerate(chosen):
        yield AgedPerson(
            young=volume(person, (), "young"),
            aged=volume(person, aged, "aged"),
            aged_regions=aged,
            restored={
                name: volume(person, tuple(n for n in aged if n != name), f"without-{name.replace(' ', '_')}")
                for name in (aged if person < restored else ())
            },
        )


def _aged_names(names: tuple[str, ...], seed: int, person: int) -> tuple[str, ...]:
    """A random half of the regions."""
    rng = np.random.default_rng([seed, person, 1])
    kept = np.sort(rng.permutation(len(names))[: len(names) // 2])
    return tuple(names[i] for i in kept)


def rates_of(aged: tuple[str, ...]) -> dict[str, float]:
    """Rates with which :func:`simulate_scan` makes ``aged`` regions ``AGED`` and all others ``YOUNG``."""
    rates = {}
    for name in built_in().regions["name"]:
        years = (AGED if name in aged else YOUNG) - REFERENCE_AGE
        # The sulci of a region widen with it.
        for what, rate in ((name, RATES.get(base_name(name), 0.0)), (sulci_of(name), RATES[SULCAL])):
            rates[what] = rate * years / (_TOLD - REFERENCE_AGE)
    return rates


def _volume(path: Path, person: int, aged: tuple[str, ...], seed: int) -> np.ndarray:
    if not path.is_file():
        scan = simulate_scan(_TOLD, "FM"[person % 2], person, seed, rates_of(aged))
        with replacing(path) as partial:
            np.savez_compressed(partial, volume=volume_of(scan).astype(np.float16))
    with np.load(path, allow_pickle=False) as file:
        return file["volume"].astype(np.float32)


def _claim(folder: Path, seed: int) -> None:
    """Refuse a folder with volumes that other settings made."""
    settings = {
        "Simulated": True,
        "Seed": seed,
        "ChainVersion": CHAIN_VERSION,
        "Years": [YOUNG, AGED],
        "Ages": "volumes and sulci by region",
        "LogVolumeChangePerYear": dict(RATES),
    }
    path = folder / "simulation.json"
    if path.is_file() and json.loads(path.read_text("utf-8")) != settings:
        raise InputError(path, "another simulation", f"one with seed {seed} of this version", "remove it")
    write_json(path, settings)
