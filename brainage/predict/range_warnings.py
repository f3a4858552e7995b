"""What a prediction has to be warned of: scans unlike those that the model learned from."""

from __future__ import annotations

from brainage.models.weights import TrainedModel
from brainage.predict.predictor import Prediction
from brainage.predict.regional_pattern import regional_pattern
from brainage.predict.regions import UNLABELLED
from brainage.preprocess.outputs import PreprocessedScan


def range_warnings(trained: TrainedModel, prediction: Prediction, scan: PreprocessedScan) -> list[str]:
    """Reasons to trust this prediction less than the cross-validated error suggests."""
    low, high = trained.facts["age_range"]
    messages = []
    if not low <= prediction.age <= high:
        messages.append(f"predicted age outside the training range of {low:g} to {high:g} years")
    if prediction.unusual > trained.facts["unusual_limit"]:
        messages.append(
            f"unlike the training scans (distance {prediction.unusual:.2f}; 95 % of theirs are below "
            f"{trained.facts['unusual_limit']:.2f}), so the error may be much larger than the interval says"
        )
    part, limit = int(prediction.unusual_N.argmax()), trained.facts.get("unusual_part_limit")
    if limit is not None and prediction.unusual_N[part] > limit:
        messages.append(
            f"a part of the scan ({_place(trained, part)}) is unlike the training scans (distance "
            f"{prediction.unusual_N[part]:.1f}; in 97.5 % of theirs none is above {limit:.1f}): a lesion, an "
            "artefact, a wrong mask or alignment"
        )
    messages += _pattern_warnings(trained, prediction)
    if scan.fingerprint != trained.facts["preprocessing_fingerprint"]:
        messages.append("preprocessed by another version or with other settings than the training scans")
    if prediction.interval is None:
        messages.append("no interval, since the model was not calibrated on enough subjects")
    return messages


def _pattern_warnings(trained: TrainedModel, prediction: Prediction) -> list[str]:
    pattern, looks_R = regional_pattern(trained), prediction.regional_R
    if pattern is None or looks_R is None:
        return []
    distance = pattern.distance(looks_R, prediction.age)
    if distance <= pattern.limit:
        return []
    return [
        f"its regions look old and young in another pattern than in the training scans (distance "
        f"{distance:.2f}; 97.5 % of theirs are below {pattern.limit:.2f}), as those of another scanner or "
        "sequence do, so the error may be much larger than the interval says"
    ]


def _place(trained: TrainedModel, token: int) -> str:
    """The region that holds most of a token's patch, with its side (L, R) where it has one."""
    share_R = trained.region_share_NR[token]
    return trained.region_names[int(share_R.argmax())] if share_R.max() > 0 else UNLABELLED
