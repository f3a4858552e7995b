"""One row for every scan that was asked about, whatever becomes of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brainage.config import PreprocessRecipe, QcRecipe
from brainage.data.cohort import Problem, Scan
from brainage.data.listing import list_input, with_ids_of_their_own
from brainage.data.tables import PREDICTION_COLUMNS
from brainage.data.true_ages import TrueAges
from brainage.errors import InputError, plain_words
from brainage.models.weights import TrainedModel
from brainage.predict.gaps import gap_columns
from brainage.predict.interval_scope import interval_scope
from brainage.predict.maps import write_maps
from brainage.predict.predictor import LEVEL, Prediction, predict_scan
from brainage.predict.range_warnings import range_warnings
from brainage.preprocess.chain import preprocess_scan
from brainage.preprocess.outputs import (
    VOLUME_END,
    PreprocessedScan,
    find_preprocessed,
    is_preprocessed,
    read_preprocessed,
)

logger = logging.getLogger("brainage")


@dataclass(frozen=True)
class Request:
    """A raw scan to predict, the volume of a preprocessed one (``scan`` is None), or what cannot be read.

    Attributes:
        path, scan, problem: one of the three.
        age: true age in years, where the list that named the scan has it.
    """

    path: Path
    scan: Scan | None = None
    problem: str = ""
    age: float | None = None


def find_requests(paths: Sequence[Path]) -> list[Request]:
    """Every scan that inputs stand for: preprocessed ones, and what ``brainage preprocess`` takes."""
    requests = []
    for path in paths:
        done = find_preprocessed(path) if path.is_dir() else []
        if done or (path.is_file() and is_preprocessed(path)):
            requests += [Request(found) for found in done or [path]]
            continue
        try:
            listing = list_input(path)
        except InputError as error:
            requests.append(Request(path, problem=str(error)))
            continue
        for note in listing.notes:
            logger.info("%s", note)
        ages = TrueAges(listing.people) if listing.people is not None else None
        for scan in listing.scans:
            age = ages.of(scan.participant_id, scan.session_id) if ages else None
            requests.append(Request(scan.path, scan, age=age))
        requests += [_refused(problem) for problem in listing.problems]
    own = iter(with_ids_of_their_own(request.scan for request in requests if request.scan))
    return [replace(request, scan=next(own)) if request.scan else request for request in requests]


def _refused(problem: Problem) -> Request:
    return Request(problem.path, problem=problem.message)


@dataclass(frozen=True)
class Outcome:
    """What became of a request.

    Attributes:
        row: of the table of ages.
        scan: None after a failure.
        prefix: path and beginning of the names of its maps; None without maps.
    """

    row: dict[str, Any]
    scan: PreprocessedScan | None = None
    prefix: Path | None = None


def settings_for(trained: TrainedModel) -> PreprocessRecipe:
    """How scans are preprocessed for a model: made as those that it learnt from, judged as of today.

    The limits of quality that a model's recipe carries are those of the day of its training. They change
    no volume, so this version's take their place.
    """
    return trained.recipe.preprocess.model_copy(update={"qc": QcRecipe()})


def predict_request(
    request: Request,
    trained: TrainedModel,
    derivatives: Path,
    maps: Path | None,
    settings: PreprocessRecipe | None = None,
    all_maps: bool = False,
    true_ages: TrueAges | None = None,
) -> Outcome:
    """Preprocess where needed, predict, and write maps; never raises for what is wrong with the scan.

    Args:
        request: what to predict. A volume that was preprocessed before keeps the verdict it was given.
        trained: the model.
        derivatives: folder for the preprocessed volume of a raw scan.
        maps: folder for the maps and the region table, one subfolder a scan; none are made without it.
        settings: of preprocessing raw scans, by default :func:`settings_for` the model. Volumes made in
            another way than the training scans get a warning.
        all_maps: in native space too those of every layer, and the shares.
        true_ages: chronological ages, where known, from which the gaps follow; by default the request's own.
    """
    row: dict[str, Any] = dict.fromkeys(PREDICTION_COLUMNS, "")
    row["path"] = str(request.path)
    if request.scan:
        row |= {"participant_id": request.scan.participant_id, "session_id": request.scan.session_id}
    try:
        if request.problem:
            return _failed(row, request.problem)
        if request.scan is None:
            scan = read_preprocessed(request.path)
        else:
            scan = preprocess_scan(request.scan, derivatives, settings or settings_for(trained))
        row |= {"participant_id": scan.participant_id, "session_id": scan.session_id}
        prediction = predict_scan(trained, scan.volume())
        prefix = None
        if maps is not None:
            name = scan.volume_path.name.removesuffix(f"{VOLUME_END}.nii.gz")
            prefix = maps / name / name
            write_maps(prefix, trained, prediction, scan, all_maps)
    except InputError as error:
        figures = {name: _short(value) for name, value in getattr(error, "qc", {}).items()}
        return _failed(row | figures, str(error))
    except Exception as error:
        # One scan must not cost the others; the traceback goes to the log.
        logger.debug("Prediction failed", exc_info=True)
        return _failed(row, f"{request.path.name}: unexpected error: {plain_words(error)}")
    age = true_ages.of(scan.participant_id, scan.session_id) if true_ages else request.age
    messages = [*scan.warnings, *range_warnings(trained, prediction, scan)]
    row |= {
        "predicted_age": f"{prediction.age:.2f}",
        "status": "warning" if messages else "ok",
        "message": "; ".join(messages),
        **_interval(prediction),
        "interval_scope": interval_scope(trained.recipe.card, prediction.interval is not None),
        **gap_columns(trained, prediction.age, age),
        "stripped": scan.stripped,
        **{name: _short(value) for name, value in scan.qc.items()},
        "unusual": _short(prediction.unusual),
        "model": trained.facts["name"],
        "model_fingerprint": trained.facts["fingerprint"],
        "preprocessing_fingerprint": scan.fingerprint,
    }
    return Outcome(row, scan, prefix)


def failed_prediction(request: Request, message: str) -> Outcome:
    """The outcome of a request whose scan was lost before it could be predicted."""
    row: dict[str, Any] = dict.fromkeys(PREDICTION_COLUMNS, "") | {"path": str(request.path)}
    if request.scan:
        row |= {"participant_id": request.scan.participant_id, "session_id": request.scan.session_id}
    return Outcome(row | {"status": "failed", "message": message})


def _failed(row: dict[str, Any], message: str) -> Outcome:
    logger.warning("%s", message)
    return Outcome(row | {"status": "failed", "message": message})


def _interval(prediction: Prediction) -> dict[str, str]:
    if prediction.interval is None:
        return {}
    low, high = prediction.interval
    return {"interval_low": f"{low:.2f}", "interval_high": f"{high:.2f}", "interval_level": f"{LEVEL:g}"}


def _short(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else ""
