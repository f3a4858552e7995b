"""What an evaluation can say to the items of TRIPOD+AI, and which it cannot know.

Collins et al. 2024, doi:10.1136/bmj-2023-078378; item numbers are that checklist's, the wording is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What only the authors of a study can fill in.
OPEN_ITEMS = (
    ("1-2", "title and abstract"),
    ("3a-4", "background, target population, health inequalities, objectives"),
    ("5a-6c", "source and dates of the data, setting, eligibility, treatments"),
    ("8b-c, 9c", "who assessed outcome and predictors, and blinding"),
    ("9a, 12b-c, 22", "choice and handling of predictors, building and specification of the model: its card"),
    ("10", "justification of the sample size"),
    (
        "16, 20c",
        "differences from the data that the model was developed on, which its card describes",
    ),
    ("17-19", "ethics, funding, conflicts, protocol, registration, sharing, involvement of the public"),
    ("25-27c", "interpretation, limitations, use in practice"),
)


def tripod_items(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """Item, subject and answer for each item that the figures of ``evaluate_ages`` fill."""
    items = [
        ("7", "Data preparation", _preparation(result)),
        ("8a", "Outcome", "chronological age at the scan, years, from the table of participants"),
        ("9b", "Predictors", "one T1-weighted scan; preprocessing and model by their fingerprints"),
        ("11", "Missing data", _missing(result)),
        ("12a", "How the data were used", _partition(result)),
        ("12d", "Heterogeneity, methods", _heterogeneity(result)),
        ("12e", "Performance measures", _measures(result)),
        ("12f", "Model updating", "none; corrected gaps are reported apart and enter no headline figure"),
        ("12g", "How predictions were made", _calculated(result)),
        ("13", "Class imbalance", "none: the outcome is continuous; errors by age band are in the tables"),
        ("14", "Fairness", _groups_said(result, "by_sex", "sex")),
        ("15", "Output", f"age in years with {_interval_said(result)}; {result['method']['gap']}"),
        ("20a", "Flow of participants", _flow(result)),
        ("20b", "Characteristics", _characteristics(result)),
        ("21", "Number analysed", f"{result['n_scans']} scans of {result['n_subjects']} subjects"),
        ("23a", "Performance", _performance(result)),
        ("23b", "Heterogeneity between sites", _sites(result)),
        ("24", "Results of model updating", "none, see 12f"),
    ]
    return [{"item": item, "subject": subject, "answer": answer} for item, subject, answer in items]


def _preparation(result: Mapping[str, Any]) -> str:
    return (
        f"brainage preprocess{_named(result, 'preprocessing_fingerprint', ', fingerprint ')}; quality "
        f"control leaves {result['n_warning']} of the scans compared with a warning"
    )


def _partition(result: Mapping[str, Any]) -> str:
    if result["n_folds"] is None:
        return "for evaluation; whether the model learned from any of these scans is not in the file"
    return f"cross-validation: each scan by the model that left its fold out, {result['n_folds']} folds"


def _heterogeneity(result: Mapping[str, Any]) -> str:
    if len(result["by_site"]) < 2:
        return "not examined: one site, or sites not given"
    return "errors and gaps by site, and each site's gap by the line fitted to the other sites"


def _calculated(result: Mapping[str, Any]) -> str:
    if not result["made_by"].get("model_fingerprint"):
        return "which model made them is not in the file"
    return f"by brainage predict, model {_named(result, 'model')}{_named(result, 'model_fingerprint', ' (')})"


def _named(result: Mapping[str, Any], key: str, before: str = "") -> str:
    names = result["made_by"].get(key)
    return before + ", ".join(names) if names else ""


def _missing(result: Mapping[str, Any]) -> str:
    return (
        f"complete cases: {result['n_failed']} scans without a prediction and {result['n_without_age']} "
        "without a usable age are left out, none is imputed"
    )


def _measures(result: Mapping[str, Any]) -> str:
    said = (
        f"MAE, RMSE, R2, r, mean gap, slope of gap on age, calibration plot; {result['method']['interval']}"
    )
    return said + ("; coverage of the prediction intervals" if result["coverage"] else "")


def _interval_said(result: Mapping[str, Any]) -> str:
    coverage = result["coverage"]
    if coverage is None:
        return "no prediction interval"
    level = coverage["level"]
    return "a prediction interval" if level is None else f"a {level:.0%} prediction interval"


def _flow(result: Mapping[str, Any]) -> str:
    return (
        f"compared {result['n_scans']}, of these with a warning {result['n_warning']}; left out without a "
        f"prediction {result['n_failed']}, without an age {result['n_without_age']}; with an age but no scan "
        f"{result['n_not_predicted']}"
    )


def _characteristics(result: Mapping[str, Any]) -> str:
    low, high = result["age_range"]
    spread = "" if result["age_sd"] is None else f", sd {result['age_sd']:.1f}"
    said = f"age {low:g} to {high:g}, mean {result['age_mean']:.1f}{spread}"
    for key in ("by_sex", "by_site"):
        counts = ", ".join(f"{group['group']} {group['n_scans']}" for group in result[key])
        said += f"; {counts}" if counts else f"; {key.removeprefix('by_')} not given"
    return said


def _performance(result: Mapping[str, Any]) -> str:
    return (
        f"MAE {_with_bounds(result, 'mae', '.2f')} years, r {_with_bounds(result, 'pearson_r', '.3f')}, "
        f"mean gap {_with_bounds(result, 'mean_gap', '+.2f')} years; by age band and sex in the tables"
    )


def _groups_said(result: Mapping[str, Any], key: str, name: str) -> str:
    groups = result[key]
    if not groups:
        return f"{name} not given, so not examined"
    said = "; ".join(f"{group['group']} {_with_bounds(group, 'mae', '.2f')}" for group in groups)
    return f"MAE by {name}, years: {said}; other attributes are not in the files"


def _sites(result: Mapping[str, Any]) -> str:
    if len(result["by_site"]) < 2:
        return "one site, or sites not given, so not examined"
    how = {True: "each left out of the model that predicts it", False: "each also in the training"}
    left_out = how.get(result["sites_left_out"], "whether the model knew them is not in the file")
    return f"{_groups_said(result, 'by_site', 'site')} ({left_out})"


def _with_bounds(figures: Mapping[str, Any], name: str, form: str) -> str:
    value, (low, high) = figures[name], figures[f"{name}_ci95"]
    if value is None:
        return "undefined"
    return f"{value:{form}}" + ("" if low is None else f" ({low:{form}} to {high:{form}})")
