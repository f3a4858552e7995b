"""The model card: what a trained model is, how well it does, and what it must not be used for.

Everything but the recipe's own words on cohort and scanner is taken from the training run (Mitchell et al.
2019, doi:10.1145/3287560.3287596).
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from brainage.config import BrainAgeRecipe
from brainage.evaluate.conformal import conformal_quantile, cross_conformal
from brainage.evaluate.coverage import interval_coverage
from brainage.evaluate.summary import age_band, predictor_figures
from brainage.files import replacing
from brainage.predict.interval_scope import interval_scope

LEVEL = 0.9
_NAMES = {"voxel_ridge": "voxel ridge, same folds", "mean_predictor": "mean predictor, same folds"}
_KNOWN = {"participant_id", "session_id", "age", "fold"}


def write_model_card(
    path: str | PathLike[str],
    facts: Mapping[str, Any],
    recipe: BrainAgeRecipe,
    predictions: pd.DataFrame | None,
    *,
    model: str,
    parameters: int | None = None,
    megabytes: float | None = None,
) -> None:
    """Write the card of a training as Markdown.

    Args:
        path: to write to.
        facts: of the trained model.
        recipe: it was trained by, with the words on cohort and scanner in ``card``.
        predictions: of its cross-validation, ``age``, ``fold`` and a column for each predictor; None without.
        model: column of the model itself.
        parameters: number of them.
        megabytes: size of the file.
    """
    environment = Environment(
        loader=PackageLoader("brainage.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("model_card.md.j2").render(
        facts=facts,
        recipe=recipe,
        card=recipe.card,
        scope=interval_scope(recipe.card, _calibrated(predictions)),
        parameters=parameters,
        megabytes=megabytes,
        measured=None if predictions is None else _measured(predictions, model),
        level=LEVEL,
    )
    with replacing(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8")


def _calibrated(predictions: pd.DataFrame | None) -> bool:
    return predictions is not None and conformal_quantile(np.zeros(len(predictions)), LEVEL) is not None


def _measured(predictions: pd.DataFrame, model: str) -> dict[str, Any]:
    """Rows of the tables of the card."""
    others = [name for name in predictions if name not in _KNOWN | {model}]
    rows = []
    for column in (model, *others):
        figures = predictor_figures(predictions, predictions[column].to_numpy())
        name = "this model" if column == model else str(column)
        rows.append((_NAMES.get(name, name), figures))
    predicted, age = predictions[model].to_numpy(), predictions["age"].to_numpy()
    half = cross_conformal(predicted, age, predictions["fold"], LEVEL)
    bands = age_band(predictions["age"])
    table = predictions.assign(
        predicted_age=predicted,
        interval_low=predicted - half,
        interval_high=predicted + half,
        interval_level=LEVEL,
    )
    coverage = interval_coverage(table, bands) if np.isfinite(half).all() else None
    by_band = {band["group"]: band for band in coverage["by_age_band"]} if coverage else {}
    groups = []
    for label, members in table.groupby(bands):
        figures = predictor_figures(members, members["predicted_age"].to_numpy())
        groups.append((str(label), len(members), figures, by_band.get(str(label))))
    groups.sort(key=lambda group: int(group[0].split("-")[0]))
    return {"rows": rows, "groups": groups, "coverage": coverage, "folds": int(predictions["fold"].nunique())}
