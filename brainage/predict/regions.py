"""What each region of the atlas gave to a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from brainage.anatomy.grid import MODEL_GRID
from brainage.anatomy.regions import divide_tokens
from brainage.models.weights import TrainedModel
from brainage.predict.predictor import Prediction
from brainage.predict.reference import AgeReference, fit_reference
from brainage.predict.regional_age import LEAST_COVERAGE, RegionReference, regional_references

UNLABELLED = "outside the atlas"


def region_table(
    trained: TrainedModel,
    prediction: Prediction,
    native_to_mni: np.ndarray,
    native_shape: tuple[int, ...],
    native_affine: np.ndarray,
) -> pd.DataFrame:
    """Contributions and expert shares by region.

    A token's contribution is divided among the regions in its patch by their volumes, so the column sums
    exactly to the predicted age minus the baseline.

    Args:
        trained: the model that predicted.
        prediction: of the scan.
        native_to_mni: (4, 4) world RAS mm of the scan -> world RAS mm of the template.
        native_shape, native_affine: of the scan; what of a region they leave out is missing in ``coverage``.

    Returns:
        ``region, hemisphere, group, contribution_years, coverage`` (share of the region's volume that lies
        in the scan's field of view) and ``share_<expert>``, R rows and one for what the atlas leaves out. If
        the model carries a reference, also ``healthy_low, healthy_high`` (the middle 90 % of healthy people
        whose age is the predicted one, years) and ``percentile`` (how many of them have a smaller one, %);
        missing where the predicted age lies outside the reference's range. If it carries regional ages, also
        ``regional_age`` (what the region looks by itself, years), ``regional_error`` (root mean square, out
        of fold), ``regional_low, regional_high`` and ``regional_percentile`` (of healthy people of the
        predicted age); missing where a region errs no less than guessing or lies outside the scan.
    """
    share_NR = trained.region_share_NR.numpy()
    contribution_R = prediction.contributions_N.astype(np.float64) @ divide_tokens(share_NR)
    weight_NR = np.column_stack([share_NR, share_NR.sum(1) <= 0])
    volume_R = weight_NR.sum(0)
    seen_N = _field_of_view(trained, native_to_mni, native_shape, native_affine)
    with np.errstate(invalid="ignore"):
        coverage_R = seen_N @ weight_NR / volume_R
        shares_RE = weight_NR.T @ prediction.gates_NE / volume_R[:, None]
    table = pd.DataFrame(
        {
            "region": [*trained.region_names, UNLABELLED],
            "hemisphere": [*trained.region_hemispheres, "bilateral"],
            "group": [*trained.region_groups, ""],
            "contribution_years": contribution_R,
            "coverage": coverage_R,
        }
    )
    references = region_references(trained)
    if references is not None:
        age = prediction.age
        ranges = [reference.interval(age) or (np.nan, np.nan) for reference in references]
        table["healthy_low"], table["healthy_high"] = np.array(ranges).T
        table["percentile"] = [
            reference.percent_below(years, age)
            for reference, years in zip(references, contribution_R.tolist(), strict=True)
        ]
    _add_regional_ages(table, trained, prediction)
    for column, name in enumerate(trained.model.routed_names):
        table[f"share_{name.replace(' ', '_')}"] = shares_RE[:, column]
    return table


def _add_regional_ages(table: pd.DataFrame, trained: TrainedModel, prediction: Prediction) -> None:
    references = regional_references(trained)
    if prediction.regional_R is None or references is None:
        return
    rows: list[dict[str, float | None]] = []
    for looks, reference, coverage in zip(
        prediction.regional_R.tolist(), references, table["coverage"], strict=False
    ):
        if reference is None or coverage < LEAST_COVERAGE:
            rows.append({})
        else:
            rows.append(_regional_row(looks, reference, prediction.age))
    # What the atlas leaves out is no region.
    table[_REGIONAL] = pd.DataFrame([*rows, {}], columns=_REGIONAL, dtype=float)


_REGIONAL = ["regional_age", "regional_error", "regional_low", "regional_high", "regional_percentile"]


def _regional_row(looks: float, reference: RegionReference, age: float) -> dict[str, float | None]:
    low = high = percentile = None
    if reference.healthy is not None:
        low, high = reference.healthy.interval(age) or (None, None)
        percentile = reference.healthy.percent_below(looks, age)
    return dict(zip(_REGIONAL, (looks, reference.error, low, high, percentile), strict=True))


@lru_cache(maxsize=1)
def region_references(trained: TrainedModel) -> tuple[AgeReference, ...] | None:
    """What healthy people get from each region and from the rest; None if the model does not carry it.

    Fitted once for a model, whose fields do not change.
    """
    if trained.reference_ages_C is None or trained.reference_years_CR is None:
        return None
    ages_C = trained.reference_ages_C.numpy()
    fitted = [fit_reference(ages_C, years_C) for years_C in trained.reference_years_CR.numpy().T]
    references = tuple(reference for reference in fitted if reference is not None)
    return references if len(references) == len(fitted) == len(trained.region_names) + 1 else None


@lru_cache(maxsize=1)
def gap_reference(trained: TrainedModel) -> AgeReference | None:
    """The gaps (predicted - chronological age) of healthy people; None if the model lacks their ages."""
    ages_C = trained.reference_ages_C
    if ages_C is None or len(ages_C) != len(trained.residuals_C):
        return None
    return fit_reference(ages_C.numpy(), trained.residuals_C.numpy())


def prediction_facts(trained: TrainedModel, prediction: Prediction, table: pd.DataFrame) -> dict[str, Any]:
    """What a report needs beside the maps, as JSON: the age and its parts, and what the model is.

    Args:
        trained: the model that predicted.
        prediction: of the scan.
        table: of :func:`region_table`.
    """
    references, gap = region_references(trained), gap_reference(trained)
    regional = regional_references(trained)
    residuals_C = trained.residuals_C.numpy()
    names = (
        "name",
        "fingerprint",
        "preprocessing_fingerprint",
        "cohort",
        "num_subjects",
        "age_range",
        "unusual_limit",
    )
    shares = [column for column in table if str(column).startswith("share_")]
    regions = []
    for place, row in enumerate(table.to_dict("records")):
        regions.append(
            {
                "region": row["region"],
                "hemisphere": row["hemisphere"],
                "group": row["group"],
                "contribution_years": round(float(row["contribution_years"]), 7),
                "coverage": _rounded(row["coverage"]),
                "shares": {
                    str(name).removeprefix("share_"): value
                    for name in shares
                    if (value := _rounded(row[name])) is not None
                },
                "healthy": None if references is None else references[place].to_json(),
                "by_itself": _by_itself(row, regional, place),
            }
        )
    return {
        "predicted_age": round(prediction.age, 7),
        "interval": prediction.interval,
        "baseline": round(prediction.baseline, 7),
        "experts": list(trained.model.routed_names),
        "regional_experts": trained.recipe.model.prior != "none",
        "model": {
            **{name: trained.facts[name] for name in names if name in trained.facts},
            "age_bias": trained.facts.get("age_bias"),
            "cross_validated": None
            if not len(residuals_C)
            else {"subjects": len(residuals_C), "mae": round(float(np.abs(residuals_C).mean()), 3)},
        },
        "gap_reference": None if gap is None else gap.to_json(),
        "regions": regions,
    }


def _by_itself(
    row: Mapping[Any, Any], references: tuple[RegionReference | None, ...] | None, place: int
) -> dict[str, Any] | None:
    looks = float(row.get("regional_age", np.nan))
    reference = None if references is None or not np.isfinite(looks) else references[place]
    return None if reference is None else reference.to_json(looks)


def _rounded(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


def _field_of_view(
    trained: TrainedModel, native_to_mni: np.ndarray, native_shape: tuple[int, ...], native_affine: np.ndarray
) -> np.ndarray:
    """Share (N,) of each token's patch that lies within the scan's field of view."""
    to_native = np.linalg.inv(np.asarray(native_to_mni) @ np.asarray(native_affine)) @ MODEL_GRID.affine
    index = np.indices(MODEL_GRID.shape, dtype=np.float32).reshape(3, -1)
    native = to_native[:3, :3] @ index + to_native[:3, 3:]
    limit = np.asarray(native_shape[:3], dtype=float)[:, None] - 0.5
    inside = ((native >= -0.5) & (native <= limit)).all(0).reshape(MODEL_GRID.shape)
    size = trained.recipe.model.patch
    x, y, z = trained.model.grid
    share_T = inside.reshape(x, size, y, size, z, size).mean((1, 3, 5)).ravel()
    return share_T[trained.model.index_N.cpu().numpy()]
