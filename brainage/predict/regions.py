"""What each region of the atlas gave to a prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd

from brainage.anatomy.grid import MODEL_GRID
from brainage.models.weights import TrainedModel
from brainage.predict.predictor import Prediction

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
        in the scan's field of view) and ``share_<expert>``, R rows and one for what the atlas leaves out.
    """
    share_NR = trained.region_share_NR.numpy()
    total_N = share_NR.sum(1)
    unlabelled_N = (total_N <= 0).astype(np.float32)
    division_NR = np.column_stack([share_NR / np.where(total_N > 0, total_N, 1)[:, None], unlabelled_N])
    contribution_R = prediction.contributions_N.astype(np.float64) @ division_NR
    weight_NR = np.column_stack([share_NR, unlabelled_N])
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
    for column, name in enumerate(trained.model.routed_names):
        table[f"share_{name.replace(' ', '_')}"] = shares_RE[:, column]
    return table


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
