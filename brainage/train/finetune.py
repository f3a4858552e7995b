"""A trained model adapted to another cohort, in closed form: by a line, or by the head's weights.

A new scanner moves predictions by years and tilts them; its cohort is seldom large enough to train on. The
encoder stays as it is. What is fitted to the new ages, from stiff to supple:

- ``line``: predictions are moved and stretched, by a regression of age on prediction that is drawn towards no
  change (a Gaussian prior of what scanners do), so that two subjects change little and thirty all they can;
- ``head``: the head's weights change too, by a ridge regression of what the line leaves on the encoded
  tokens, drawn towards no change as well.

Each is a change of the head and the baseline alone, so contributions still add up to the age. Whether the
head is taken is decided by cross-validation by subject on the new cohort, which calibrates its intervals,
too.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from brainage.data.datasets import AgedScan
from brainage.data.splits import age_stratified_folds
from brainage.errors import ConfigError
from brainage.models.brain_age import BrainAgeModel
from brainage.train.probe import volume_batches

Floats = NDArray[np.float64]

METHODS = ("none", "line", "head")
FEWEST = {"line": 2, "head": 20}  # subjects that a method is tried with
FOLDS = 10
_SHIFT_YEARS, _STRETCH, _ERROR_YEARS = 6.0, 0.2, 8.0
"""Standard deviations: of a scanner's shift in the middle of its cohort (the root mean square over the three
other sites in the README is 5.7), of its slope about 1, and of one person's error. They matter to few
subjects, whose own errors the line would follow without them."""
_PENALTIES = np.logspace(-2, 4, 13)  # of the head, relative to the mean square of its features
_BATCH = 8


@dataclass(frozen=True, eq=False)
class Features:
    """What adaptation needs of N scans.

    Attributes:
        tokens_NF: encoded tokens, scaled so that weights of the head give years; less their mean.
        predicted_N, age_N: by the model as it was, and true; years.
        subjects_N: participant ids.
        centre_F: that mean.
    """

    tokens_NF: Floats
    predicted_N: Floats
    age_N: Floats
    subjects_N: tuple[str, ...]
    centre_F: Floats

    def only(self, rows: NDArray[np.intp]) -> Features:
        """Those scans alone."""
        names = tuple(self.subjects_N[row] for row in rows)
        kept = (self.tokens_NF[rows], self.predicted_N[rows], self.age_N[rows])
        return Features(*kept, names, self.centre_F)


@dataclass(frozen=True, eq=False)
class Change:
    """age = slope * predicted + intercept + (tokens - centre) @ weights; years."""

    slope: float = 1.0
    intercept: float = 0.0
    weights_F: Floats | None = None

    def apply(self, predicted_N: Floats, tokens_NF: Floats) -> Floats:
        """Adapted predictions (N,), years."""
        ages = self.slope * predicted_N + self.intercept
        return ages if self.weights_F is None else ages + tokens_NF @ self.weights_F


@dataclass(frozen=True, eq=False)
class Adaptation:
    """The adapted model, and what cross-validation on the new cohort says of every method.

    Attributes:
        model: changed in head and baseline.
        method: that was taken.
        error: cross-validated mean absolute error of each method tried, years; ``none``: as it was.
        predicted_N: out-of-fold predictions of the method taken, years.
        before_N: predictions of the model as it was, years.
    """

    model: BrainAgeModel
    method: str
    error: dict[str, float]
    predicted_N: Floats
    before_N: Floats


@torch.no_grad()
def features(model: BrainAgeModel, scans: Sequence[AgedScan]) -> Features:
    """Encode scans and predict them with the model as it is, which must be in evaluation mode."""
    factor = float(model.scale) / len(model.head.bias_N)
    rows, predicted = [], []
    for volumes in volume_batches(scans, _BATCH):
        tokens_BND, _ = model.encode(volumes)
        rows.append(tokens_BND.flatten(1).double().numpy() * factor)
        years_B = float(model.baseline) + float(model.scale) * model.head(tokens_BND).mean(1)
        predicted.append(years_B.double().numpy())
    tokens = np.concatenate(rows)
    centre = tokens.mean(0)
    return Features(
        tokens_NF=tokens - centre,
        predicted_N=np.concatenate(predicted),
        age_N=np.array([scan.age for scan in scans]),
        subjects_N=tuple(scan.participant_id for scan in scans),
        centre_F=centre,
    )


def fit_change(method: str, known: Features, rows: NDArray[np.bool_] | None = None) -> Change:
    """Fit one method to (some of) the scans.

    Raises:
        ConfigError: no such method.
    """
    if method not in METHODS:
        raise ConfigError("method", method, f"must be one of {', '.join(METHODS)}")
    rows = np.ones(len(known.age_N), bool) if rows is None else rows
    age, predicted = known.age_N[rows], known.predicted_N[rows]
    if method == "none":
        return Change()
    line = _line(predicted, age)
    if method == "line":
        return line
    tokens = known.tokens_NF[rows]
    return Change(line.slope, line.intercept, _ridge(tokens, age - line.apply(predicted, tokens)))


def adapt(model: BrainAgeModel, scans: Sequence[AgedScan], method: str = "auto", seed: int = 0) -> Adaptation:
    """Adapt a model to scans of another cohort.

    Args:
        model: trained; left as it is.
        scans: with true ages. It has learned from none of them.
        method: one of ``METHODS``, or ``auto``: the line, unless the head's cross-validated error is
            clearly lower.
        seed: of the folds.

    Raises:
        ConfigError: no such method, or too few subjects for it.
    """
    known = features(model, scans)
    taken, error, predicted = choose(known, method, seed)
    adapted = changed(model, fit_change(taken, known), known.centre_F)
    return Adaptation(adapted, taken, error, predicted, known.predicted_N)


def choose(known: Features, method: str = "auto", seed: int = 0) -> tuple[str, dict[str, float], Floats]:
    """The method taken, the cross-validated error of each tried, and its out-of-fold predictions (N,); years.

    Raises:
        ConfigError: as :func:`adapt`.
    """
    count = len(set(known.subjects_N))
    tried = [name for name in METHODS if name == "none" or count >= FEWEST[name]]
    if method not in (*METHODS, "auto"):
        raise ConfigError("method", method, f"must be auto or one of {', '.join(METHODS)}")
    if count < FEWEST["line"] or (method != "auto" and method not in tried):
        wanted = FEWEST.get(method, FEWEST["line"])
        raise ConfigError("subjects", count, f"must be at least {wanted} for the method {method}")
    out_of_fold = {name: cross_validated(name, known, seed) for name in tried}
    errors = {name: np.abs(predicted - known.age_N) for name, predicted in out_of_fold.items()}
    if method == "auto":
        method = "head" if "head" in tried and clearly_lower(errors["head"], errors["line"]) else "line"
    return method, {name: float(values.mean()) for name, values in errors.items()}, out_of_fold[method]


def cross_validated(method: str, known: Features, seed: int = 0) -> Floats:
    """Predictions (N,) of each scan by a change that was fitted to other subjects alone, years."""
    folds = min(FOLDS, len(set(known.subjects_N)))
    place_N = np.asarray(age_stratified_folds(known.subjects_N, known.age_N.tolist(), folds, seed))
    predicted = np.empty(len(known.age_N))
    for fold in range(folds):
        here = place_N == fold
        change = fit_change(method, known, ~here)
        predicted[here] = change.apply(known.predicted_N[here], known.tokens_NF[here])
    return predicted


def clearly_lower(errors_N: Floats, others_N: Floats) -> bool:
    """Whether the mean error is lower by more than one standard error of the paired difference."""
    difference = others_N - errors_N
    return bool(difference.mean() > difference.std(ddof=1) / np.sqrt(len(difference)))


@torch.no_grad()
def changed(model: BrainAgeModel, change: Change, centre_F: Floats) -> BrainAgeModel:
    """A copy of the model that predicts what ``change`` makes of its predictions."""
    adapted = copy.deepcopy(model)
    head = adapted.head
    head.weight_ND.mul_(change.slope)
    head.bias_N.mul_(change.slope)
    baseline = change.slope * float(model.baseline) + change.intercept
    adapted.baseline.fill_(baseline)
    if change.weights_F is not None:
        factor = float(model.scale) / len(head.bias_N)
        weight_ND = torch.from_numpy(change.weights_F).view_as(head.weight_ND).float()
        head.weight_ND.add_(weight_ND)
        # What the centre gives is taken off where it arises: a mean scan's contributions stay as they were.
        centre_ND = torch.from_numpy(centre_F / factor).view_as(head.weight_ND).float()
        head.bias_N.sub_((weight_ND * centre_ND).sum(1))
    return adapted


def _line(predicted_N: Floats, age_N: Floats) -> Change:
    """The most probable line of age on prediction: Bayesian regression about no change."""
    centre = float(predicted_N.mean())
    design = np.stack([np.ones_like(predicted_N), predicted_N - centre], axis=1)
    precision = design.T @ design + _ERROR_YEARS**2 * np.diag([_SHIFT_YEARS**-2, _STRETCH**-2])
    shift, stretch = np.linalg.solve(precision, design.T @ (age_N - predicted_N))
    return Change(float(1 + stretch), float(shift - stretch * centre))


def _ridge(tokens_NF: Floats, target_N: Floats) -> Floats:
    """Weights (F,) of the ridge regression with the penalty that leave-one-out likes best.

    By the N x N kernel, since there are far fewer scans than features.
    """
    kernel = tokens_NF @ tokens_NF.T
    values, vectors = np.linalg.eigh(kernel)
    mean = float(np.trace(kernel)) / len(kernel)
    rotated = vectors.T @ target_N
    best, chosen = np.inf, np.zeros(len(target_N))
    for penalty in _PENALTIES * max(mean, 1e-12):
        dual = vectors @ (rotated / (values + penalty))
        diagonal = (vectors**2 / (values + penalty)).sum(1)
        error = float(np.abs(dual / diagonal).mean())  # leave-one-out residuals of ridge
        if error < best:
            best, chosen = error, dual
    return tokens_NF.T @ chosen
