"""All that is measured of whether maps say what the model does: the content of ``brainage faithfulness``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from brainage.data.datasets import AgedScan
from brainage.models.weights import TrainedModel
from brainage.predict.deletion import DeletionCurves, deletion_curves, random_curves, summarise
from brainage.predict.map_sanity import (
    label_shuffle,
    model_agreement,
    parameter_randomisation,
    rescan_stability,
)
from brainage.predict.map_truth import truth_content
from brainage.predict.region_gates import RegionGates, attribute
from brainage.predict.simulated_aging import AGED, YOUNG, simulated_people
from brainage.predict.specialisation import specialisation

RANDOM_ORDERS = 3
_FEWEST_HELD_OUT = 5

Say = Callable[[str], None]


def faithfulness_content(
    trained: TrainedModel,
    folder: Path,
    people: int,
    restored: int,
    cohort: tuple[str, Sequence[AgedScan]] | None = None,
    number: int = 24,
    others: Mapping[str, TrainedModel] | None = None,
    seed: int = 0,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Measure a model's maps on simulated people and, where given, on real scans.

    Args:
        trained: the model.
        folder: keeps the simulated volumes, which do not depend on the model.
        people, restored: as for :func:`~brainage.predict.simulated_aging.simulated_people`.
        cohort: name and scans, with ages, of real people.
        number: scans of each cohort to look at, spread evenly over age.
        others: further models by name, such as one trained with another seed.
        seed: of all that is random.
        say: told what is being done.

    Returns:
        ``model``; ``truth``, see :func:`~brainage.predict.map_truth.truth_content`; ``cohorts``, for the
        simulated people and the real ones: ``deletion`` (curves by method), ``agreement`` (of the other
        methods with the contributions), ``seconds`` (by method), ``randomised``, ``labels``, ``rescans``,
        ``others`` and ``specialisation``.
    """
    made = list(
        simulated_people(
            folder, people, restored, seed, lambda count, total: say(f"simulated volume {count} of {total}")
        )
    )
    say("maps of the simulated people")
    truth = truth_content(trained, made)
    simulated = [
        _scan(f"sub-{place}", age, volume)
        for place, person in enumerate(made)
        for age, volume in ((YOUNG, person.young), (AGED, person.aged))
    ]
    cohorts = [_measure(trained, "simulated people", True, simulated, number, others or {}, seed, say)]
    if cohort is not None:
        cohorts.append(_measure(trained, *cohort[:1], False, cohort[1], number, others or {}, seed, say))
    return {
        "model": {
            name: trained.facts.get(name) for name in ("name", "fingerprint", "num_subjects", "cohort")
        },
        "truth": truth,
        "cohorts": cohorts,
    }


def _measure(
    trained: TrainedModel,
    name: str,
    simulated: bool,
    scans: Sequence[AgedScan],
    number: int,
    others: Mapping[str, TrainedModel],
    seed: int,
    say: Say,
) -> dict[str, Any]:
    chosen = spread_by_age(scans, number)
    say(f"{name}: deletion and insertion of {len(chosen)} scans")
    content: dict[str, Any] = {"name": name, "simulated": simulated, "scans": len(chosen)}
    content |= _deletion(trained, chosen, seed)
    say(f"{name}: random parameters, rescans, other models")
    content["randomised"] = parameter_randomisation(trained, chosen, seed)
    content["rescans"] = rescan_stability(trained, chosen, seed)
    content["others"] = {
        other: model_agreement(trained, model, chosen) for other, model in sorted(others.items())
    }
    content["specialisation"] = {
        "this model": specialisation(trained, chosen, seed),
        **{other: specialisation(model, chosen, seed) for other, model in sorted(others.items())},
    }
    content["labels"] = None
    held_out = scans[::5]
    if not simulated and len(held_out) >= _FEWEST_HELD_OUT:
        say(f"{name}: heads refitted to true and to shuffled ages")
        learned = [scan for place, scan in enumerate(scans) if place % 5]
        content["labels"] = label_shuffle(trained, learned, held_out, seed)
    return content


def _deletion(trained: TrainedModel, scans: Sequence[AgedScan], seed: int) -> dict[str, Any]:
    """Curves of every method and of random orders, how the methods agree, and what they cost."""
    curves: dict[str, list[DeletionCurves]] = {"random order": []}
    agreeing: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for place, scan in enumerate(scans):
        gates = RegionGates(trained, scan.volume[0].float().numpy())
        attributions = attribute(gates, seed)
        own_R = attributions["contribution"].years_R
        for method, found in attributions.items():
            seconds.setdefault(method, []).append(found.seconds)
            agreeing.setdefault(method, []).append(float(spearmanr(own_R, found.years_R).statistic))
            curve = deletion_curves(gates, found.years_R)
            curves.setdefault(method, [])
            curves[method] += [] if curve is None else [curve]
        curves["random order"] += random_curves(gates, RANDOM_ORDERS, seed + place)
    return {
        "deletion": summarise(curves),
        "agreement": {method: round(float(np.mean(found)), 3) for method, found in agreeing.items()},
        "seconds": {method: round(float(np.median(found)), 3) for method, found in seconds.items()},
    }


def spread_by_age(scans: Sequence[AgedScan], number: int) -> list[AgedScan]:
    """At most ``number`` scans, evenly spaced in the order of age."""
    ordered = sorted(scans, key=lambda scan: (scan.age, scan.participant_id, scan.session_id))
    if len(ordered) <= number:
        return ordered
    places = np.rint(np.linspace(0, len(ordered) - 1, number)).astype(int)
    return [ordered[place] for place in places]


def _scan(participant_id: str, age: float, volume: np.ndarray) -> AgedScan:
    return AgedScan(participant_id, "", age, torch.from_numpy(volume).half()[None])
