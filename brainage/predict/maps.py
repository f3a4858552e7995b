"""The files that show where a prediction came from.

Each map is written on the token grid (``res-token``, 16 mm), in MNI space at 2 mm and in the scan's own space
and orientation. What every token gave is one number for the whole model; experts, shares and alignment are
there for each mixture layer and pooled over the layers.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from brainage.anatomy.grid import SPACE
from brainage.anatomy.projection import to_model_grid, to_native, tokens_to_image
from brainage.files import replacing, write_json
from brainage.models.weights import TrainedModel
from brainage.predict.predictor import Prediction, dominant
from brainage.predict.regions import prediction_facts, region_table
from brainage.preprocess.outputs import PreprocessedScan
from brainage.train.layout import atlas_of

TOKENS, NATIVE = f"{SPACE}_res-token", "T1w"
MAPS = {
    "contribution": "years that each token adds to, or takes from, the mean age of the training subjects",
    "expert": "1-based index of the expert with the largest share over all mixture layers; 0: none",
    "alignment": "cosine between token and context in the basis of its expert, mean over layers",
}
SHARES = "share of each expert (fourth axis), in the order of *_regions.json; 0 outside"
_LEVELS = 250  # shares are exact on the token grid; elsewhere in steps of 0.4 %, which keeps them small


def write_maps(
    prefix: Path,
    trained: TrainedModel,
    prediction: Prediction,
    scan: PreprocessedScan,
    everything: bool = False,
) -> None:
    """Write the maps, the atlas and the brain mask on the scan's own grid, and the tables by region.

    Args:
        prefix: path and beginning of the files' names, as :func:`map_path` completes them.
        trained: the model that predicted.
        prediction: of the scan.
        scan: with its way from and to native space.
        everything: in native space too the shares and every layer by itself, not only the three pooled maps.
    """
    index_N = trained.model.index_N.cpu().numpy()
    patch = trained.recipe.model.patch
    # Each voxel's token, from 1; 0 where there is none. All maps are looked up by it.
    tokens = tokens_to_image(np.arange(1, len(index_N) + 1), index_N, patch)
    on_mni = to_model_grid(tokens)
    on_native = to_native(tokens, scan.native_to_mni, scan.native_shape, scan.native_affine)
    layers = _layer_maps(prediction)
    for name, (values_N, meaning) in {**_pooled_maps(prediction), **layers}.items():
        grids = [(tokens, TOKENS), (on_mni, SPACE)]
        if everything or name in MAPS:
            grids.append((on_native, NATIVE))
        for grid, space in grids:
            save_image(_look_up(grid, values_N, space != TOKENS), map_path(prefix, space, name), meaning)
    mask = nib.Nifti1Image(scan.native_mask().astype(np.uint8), scan.native_affine)
    save_image(mask, prefix.with_name(f"{prefix.name}_space-{NATIVE}_desc-brain_mask.nii.gz"), "brain")
    _write_atlas(prefix, trained, scan)
    table = region_table(trained, prediction, scan.native_to_mni, scan.native_shape, scan.native_affine)
    with replacing(prefix.with_name(f"{prefix.name}_regions.tsv")) as partial:
        table.to_csv(partial, sep="\t", index=False, float_format="%.7f", na_rep="n/a")
    facts = prediction_facts(trained, prediction, table)
    facts |= {"space": SPACE, "native_to_mni": np.asarray(scan.native_to_mni, dtype=float).tolist()}
    write_json(prefix.with_name(f"{prefix.name}_regions.json"), facts)


def map_path(prefix: Path, space: str, name: str) -> Path:
    """Path of the map ``name`` in ``space`` ("T1w" is the scan's own)."""
    return prefix.with_name(f"{prefix.name}_space-{space}_desc-{name}_map.nii.gz")


def atlas_path(prefix: Path, space: str) -> Path:
    """Path of the regions, as labels from 1 in the order of the region table."""
    return prefix.with_name(f"{prefix.name}_space-{space}_desc-regions_dseg.nii.gz")


def save_image(image: nib.Nifti1Image, path: Path, meaning: str) -> None:
    """Write a NIfTI file whose header says what it holds."""
    image.header["descrip"] = meaning.encode("ascii")[:79]
    with replacing(path) as partial:
        nib.save(image, partial)


def _pooled_maps(prediction: Prediction) -> dict[str, tuple[np.ndarray, str]]:
    return {
        "contribution": (prediction.contributions_N, MAPS["contribution"]),
        "expert": (prediction.dominant_N + 1, MAPS["expert"]),
        "alignment": (prediction.alignment_N, MAPS["alignment"]),
        "shares": (prediction.gates_NE, SHARES),
    }


def _layer_maps(prediction: Prediction) -> dict[str, tuple[np.ndarray, str]]:
    """The same of each mixture layer, from 1; none for a model with one, whose pooled maps they are."""
    maps: dict[str, tuple[np.ndarray, str]] = {}
    if len(prediction.gates_LNE) == 1:
        return maps
    for number, (gates_NE, alignment_N) in enumerate(
        zip(prediction.gates_LNE, prediction.alignment_LN, strict=True), 1
    ):
        maps[f"expertLayer{number}"] = (
            dominant(gates_NE) + 1,
            f"expert with the largest share in layer {number}",
        )
        maps[f"alignmentLayer{number}"] = (alignment_N, f"cosine with the context, mixture layer {number}")
        maps[f"sharesLayer{number}"] = (
            gates_NE,
            f"share of each expert (fourth axis), mixture layer {number}",
        )
    return maps


def _look_up(grid: nib.Nifti1Image, values_N: np.ndarray, fine: bool) -> nib.Nifti1Image:
    """Values of tokens, (N,) or (N, E), where ``grid`` holds their numbers from 1."""
    token = np.nan_to_num(np.asarray(grid.dataobj)).astype(np.int32)
    if values_N.ndim == 2 and fine:
        rounded_NE = np.rint(values_N * _LEVELS).astype(np.uint8)
        image = nib.Nifti1Image(
            np.concatenate([np.zeros_like(rounded_NE[:1]), rounded_NE])[token], grid.affine
        )
        image.header.set_slope_inter(1 / _LEVELS, 0)
    elif np.issubdtype(values_N.dtype, np.integer):
        image = nib.Nifti1Image(np.concatenate([[0], values_N]).astype(np.uint8)[token], grid.affine)
    else:
        outside = np.full_like(values_N[:1], np.nan if values_N.ndim == 1 else 0)
        image = nib.Nifti1Image(np.concatenate([outside, values_N]).astype(np.float32)[token], grid.affine)
    image.set_sform(grid.affine, code=int(grid.header["sform_code"]))
    image.header.set_xyzt_units("mm")
    return image


def _write_atlas(prefix: Path, trained: TrainedModel, scan: PreprocessedScan) -> None:
    """The model's atlas in both spaces; nothing where its file is not on this machine."""
    atlas = atlas_of(trained)
    if atlas is None:
        return
    number = np.zeros(int(max(atlas.regions["index"].max(), atlas.labels.max())) + 1, np.int16)
    number[atlas.regions["index"].to_numpy()] = np.arange(1, len(atlas.regions) + 1)
    labels = nib.Nifti1Image(number[atlas.labels], atlas.affine)
    labels.set_sform(atlas.affine, code="mni")
    native = to_native(labels, scan.native_to_mni, scan.native_shape, scan.native_affine)
    data = np.nan_to_num(np.asarray(native.dataobj)).astype(np.int16)
    image = nib.Nifti1Image(data, native.affine)
    image.set_sform(native.affine, code="scanner")
    for regions, space in ((labels, SPACE), (image, NATIVE)):
        regions.header.set_xyzt_units("mm")
        save_image(regions, atlas_path(prefix, space), "regions, numbered as in *_regions.tsv")
