"""Whether an installation predicts what the shipped model predicted where it was made."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import nibabel as nib

from brainage.data.cohort import scan_of
from brainage.data.simulated_scan import simulate_scan
from brainage.errors import CheckpointError
from brainage.models.weights import TrainedModel
from brainage.predict.predictor import predict_scan
from brainage.preprocess.chain import preprocess_scan

TOLERANCE = 0.05  # years
SIMULATED_AGES = (25.0, 75.0)


@dataclass(frozen=True)
class Check:
    """One simulated scan: the age it was simulated with, the prediction stored, and the one found here."""

    simulated_age: float
    expected: float
    found: float

    @property
    def passed(self) -> bool:
        """Whether the two predictions agree to ``TOLERANCE`` years."""
        return abs(self.found - self.expected) <= TOLERANCE


def simulated_predictions(trained: TrainedModel) -> list[float]:
    """Ages in years that ``trained`` predicts for the simulated scans, from the raw scan on."""
    ages = []
    with tempfile.TemporaryDirectory(prefix="brainage-") as folder:
        for index, age in enumerate(SIMULATED_AGES):
            path = Path(folder, f"sub-simulated{index}_T1w.nii.gz")
            nib.save(simulate_scan(age, "F", index, 0).image, path)
            scan = preprocess_scan(scan_of(path), Path(folder, "derivatives"), trained.recipe.preprocess)
            ages.append(predict_scan(trained, scan.volume()).age)
    return ages


def record(trained: TrainedModel) -> dict[str, object]:
    """What a later self-test compares with, ready for JSON."""
    return {
        "Description": "Predictions for simulated scans (no person's data), years; read by brainage selftest",
        "Model": trained.facts["fingerprint"],
        "SimulatedAges": list(SIMULATED_AGES),
        "PredictedAges": [round(age, 4) for age in simulated_predictions(trained)],
    }


def check(trained: TrainedModel, recorded: str | PathLike[str]) -> list[Check]:
    """Predict the simulated scans again and compare with the file that holds :func:`record`.

    Raises:
        CheckpointError: the file belongs to another model.
    """
    expected = json.loads(Path(recorded).read_text("utf-8"))
    if expected["Model"] != trained.facts["fingerprint"]:
        raise CheckpointError(
            recorded,
            f"predictions of model {expected['Model']}",
            f"those of model {trained.facts['fingerprint']}",
            "install brainage again",
        )
    found = simulated_predictions(trained)
    return [
        Check(*ages) for ages in zip(expected["SimulatedAges"], expected["PredictedAges"], found, strict=True)
    ]
