"""The files that show where a prediction came from."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from brainage.anatomy.grid import SPACE
from brainage.anatomy.projection import to_model_grid, to_native, tokens_to_image
from brainage.files import replacing
from brainage.models.weights import TrainedModel
from brainage.predict.predictor import Prediction
from brainage.predict.regions import region_table
from brainage.preprocess.outputs import PreprocessedScan

MAPS = {
    "contribution": "years that each token adds to, or takes from, the mean age of the training subjects",
    "expert": "1-based index of the expert with the largest gate in the last mixture block; 0 for none",
    "alignment": "cosine between token and context in that expert's basis",
}


def write_maps(prefix: Path, trained: TrainedModel, prediction: Prediction, scan: PreprocessedScan) -> None:
    """Write the three maps in MNI and native space (float32, NaN where there is no token) and the table.

    Args:
        prefix: path and beginning of the files' names, as :func:`map_path` completes them.
        trained: the model that predicted.
        prediction: of the scan.
        scan: with its way from and to native space.
    """
    index_N = trained.model.index_N.cpu().numpy()
    values = {
        "contribution": prediction.contributions_N,
        "expert": (prediction.dominant_N + 1).astype(np.float32),
        "alignment": prediction.alignment_N,
    }
    for name, values_N in values.items():
        tokens = tokens_to_image(values_N, index_N, trained.recipe.model.patch)
        _save(to_model_grid(tokens), map_path(prefix, SPACE, name), MAPS[name])
        native = to_native(tokens, scan.native_to_mni, scan.native_shape, scan.native_affine)
        _save(native, map_path(prefix, "T1w", name), MAPS[name])
    table = region_table(trained, prediction, scan.native_to_mni, scan.native_shape, scan.native_affine)
    with replacing(prefix.with_name(f"{prefix.name}_regions.tsv")) as partial:
        table.to_csv(partial, sep="\t", index=False, float_format="%.7f", na_rep="n/a")


def map_path(prefix: Path, space: str, name: str) -> Path:
    """Path of the map ``name`` in ``space`` ("T1w" is the scan's own)."""
    return prefix.with_name(f"{prefix.name}_space-{space}_desc-{name}_map.nii.gz")


def _save(image: nib.Nifti1Image, path: Path, meaning: str) -> None:
    image.header["descrip"] = meaning.encode("ascii")[:79]
    with replacing(path) as partial:
        nib.save(image, partial)
