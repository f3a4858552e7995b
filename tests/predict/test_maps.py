"""The files of a prediction: same values on every grid, sides kept, tables that add up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from brainage.anatomy.atlas import built_in
from brainage.anatomy.grid import MODEL_GRID, SPACE
from brainage.anatomy.projection import to_native
from brainage.models.weights import TrainedModel, load_trained, save_trained
from brainage.predict.maps import MAPS, NATIVE, TOKENS, atlas_path, map_path, write_maps
from brainage.predict.predictor import Prediction, predict_scan
from brainage.preprocess.outputs import PreprocessedScan

POSE = np.array([[0.98, -0.17, 0.05, 6], [0.17, 0.98, -0.04, -20], [-0.04, 0.05, 1.0, 15], [0, 0, 0, 1.0]])


def scan_in(folder: Path, codes: str = "PSR", size: float = 2.5) -> PreprocessedScan:
    """A scan's way from and to native space: 2.5 mm, turned by 10 degrees, in an odd orientation."""
    plain = nib.Nifti1Image(np.zeros((80, 92, 80), np.uint8), np.diag([size, size, size, 1]))
    plain.affine[:3, 3] = -100, -130, -90
    plain = nib.Nifti1Image(np.ones(plain.shape, np.uint8), plain.affine)
    wanted = nib.orientations.axcodes2ornt(tuple(codes))
    native = plain.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(plain.affine), wanted))
    nib.save(native, folder / "mask.nii.gz")
    return PreprocessedScan(
        participant_id="sub-1",
        session_id="",
        volume_path=folder / "volume.nii.gz",
        mask_path=folder / "mask.nii.gz",
        native_to_mni=POSE,
        native_shape=native.shape,
        native_affine=native.affine,
        stripped=True,
        qc={},
        warnings=(),
        fingerprint="0" * 16,
    )


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 1.4, MODEL_GRID.shape).astype(np.float32)


@pytest.fixture(scope="module")
def two_layers(tiny_model: TrainedModel, volume: np.ndarray) -> Prediction:
    one = predict_scan(tiny_model, volume)
    turned = np.roll(one.gates_LNE, 1, axis=2)
    return dataclasses.replace(
        one,
        gates_LNE=np.concatenate([one.gates_LNE, turned]),
        alignment_LN=np.concatenate([one.alignment_LN, -one.alignment_LN]),
    )


@pytest.fixture(scope="module")
def written(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: TrainedModel, two_layers: Prediction
) -> tuple[Path, PreprocessedScan]:
    folder = tmp_path_factory.mktemp("maps")
    scan = scan_in(folder)
    write_maps(folder / "sub-1" / "sub-1", tiny_model, two_layers, scan, everything=True)
    return folder / "sub-1" / "sub-1", scan


NAMES = [
    *MAPS,
    "shares",
    *(f"{name}Layer{layer}" for layer in (1, 2) for name in ("expert", "alignment", "shares")),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_grid_holds_the_values_of_the_tokens(
    written: tuple[Path, PreprocessedScan], tiny_model: TrainedModel, name: str
) -> None:
    prefix, scan = written
    tokens, fine, native = (nib.load(map_path(prefix, space, name)) for space in (TOKENS, SPACE, NATIVE))
    assert tokens.shape[:3] == (10, 12, 10)
    np.testing.assert_allclose(tokens.affine, MODEL_GRID.coarsen(8).affine)
    assert fine.shape[:3] == MODEL_GRID.shape
    assert native.shape[:3] == scan.native_shape
    np.testing.assert_allclose(native.affine, scan.native_affine, atol=1e-5)
    # A voxel of the scan holds what the token at its place in MNI space holds.
    rng = np.random.default_rng(0)
    voxels = np.column_stack([rng.integers(0, size, 3000) for size in scan.native_shape])
    world = nib.affines.apply_affine(scan.native_to_mni @ scan.native_affine, voxels)
    place = np.rint(nib.affines.apply_affine(np.linalg.inv(tokens.affine), world)).astype(int)
    near = nib.affines.apply_affine(np.linalg.inv(tokens.affine), world) - place
    held = ((place >= 0) & (place < tokens.shape[:3])).all(1) & (np.abs(near) < 0.45).all(1)
    expected = tokens.get_fdata()[tuple(place[held].T)]
    assert np.isfinite(expected).sum() > 300
    np.testing.assert_allclose(native.get_fdata()[tuple(voxels[held].T)], expected, atol=0.0021, rtol=1e-5)


def test_pooled_maps_are_the_layers_together(written: tuple[Path, PreprocessedScan]) -> None:
    prefix, _ = written

    def tokens(name: str) -> np.ndarray:
        return nib.load(map_path(prefix, TOKENS, name)).get_fdata()

    mean = (tokens("sharesLayer1") + tokens("sharesLayer2")) / 2
    np.testing.assert_allclose(tokens("shares"), mean, atol=1e-6)
    inside = mean.sum(-1) > 0
    np.testing.assert_array_equal(tokens("expert")[inside], mean[inside].argmax(-1) + 1)
    np.testing.assert_allclose(tokens("alignment")[inside], 0, atol=1e-6)  # the layers are opposite here
    assert (tokens("expert")[~inside] == 0).all()


def test_the_contributions_of_the_map_sum_to_the_age(
    written: tuple[Path, PreprocessedScan], two_layers: Prediction
) -> None:
    years = nib.load(map_path(written[0], TOKENS, "contribution")).get_fdata()
    assert two_layers.baseline + np.nansum(years) == pytest.approx(two_layers.age, abs=1e-3)


def test_regions_on_the_scan_keep_their_side(written: tuple[Path, PreprocessedScan]) -> None:
    prefix, scan = written
    table = pd.read_csv(f"{prefix}_regions.tsv", sep="\t")
    native = nib.load(atlas_path(prefix, NATIVE))
    labels = np.asarray(native.dataobj)
    for number, row in enumerate(table.itertuples(), 1):
        where = np.argwhere(labels == number)
        if row.hemisphere in ("L", "R"):
            x = nib.affines.apply_affine(scan.native_to_mni @ scan.native_affine, where)[:, 0]
            assert np.mean(x < 0 if row.hemisphere == "L" else x > 0) > 0.95


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSR", "ILP"])
def test_atlas_there_and_back_at_1_mm(codes: str, tmp_path: Path) -> None:
    atlas = built_in()
    labels = nib.Nifti1Image(atlas.labels.astype(np.float32), atlas.affine)
    scan = scan_in(tmp_path, codes)
    shape = tuple(int(n * 2.5) for n in scan.native_shape)
    affine = scan.native_affine @ np.diag([0.4, 0.4, 0.4, 1])  # 1 mm
    native = to_native(labels, scan.native_to_mni, shape, affine)
    back = to_native(native, np.linalg.inv(scan.native_to_mni), MODEL_GRID.shape, MODEL_GRID.affine)
    returned = np.nan_to_num(np.asarray(back.dataobj))
    for index in atlas.regions["index"]:
        there, here = atlas.labels == index, returned == index
        assert 2 * (there & here).sum() / (there.sum() + here.sum()) >= 0.97


def test_the_json_says_what_a_report_needs(
    written: tuple[Path, PreprocessedScan], two_layers: Prediction
) -> None:
    facts = json.loads(Path(f"{written[0]}_regions.json").read_text("utf-8"))
    years = sum(region["contribution_years"] for region in facts["regions"])
    assert facts["baseline"] + years == pytest.approx(facts["predicted_age"], abs=1e-3)
    assert facts["predicted_age"] == pytest.approx(two_layers.age, abs=1e-5)
    np.testing.assert_allclose(facts["native_to_mni"], POSE)
    assert facts["model"]["cross_validated"] == {"subjects": 41, "mae": 5.122}
    assert facts["regions"][0]["healthy"] is None
    assert set(facts["regions"][0]["shares"]) == {name.replace(" ", "_") for name in facts["experts"]}


def test_a_model_with_a_reference_says_where_a_scan_stands_among_the_healthy(
    tiny_model: TrainedModel, two_layers: Prediction, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    own = two_layers.contributions_N
    regions = len(tiny_model.region_names) + 1
    model = dataclasses.replace(
        tiny_model,
        residuals_C=torch.linspace(-10, 10, 60),
        reference_ages_C=torch.linspace(two_layers.age - 30, two_layers.age + 30, 60),
        reference_years_CR=torch.from_numpy(rng.normal(-1e3, 1, (60, regions)).astype(np.float32)),
    )
    save_trained(tmp_path / "model.safetensors", model)
    model = load_trained(tmp_path / "model.safetensors")
    write_maps(tmp_path / "sub-1" / "sub-1", model, two_layers, scan_in(tmp_path))
    table = pd.read_csv(tmp_path / "sub-1" / "sub-1_regions.tsv", sep="\t")
    # Far above everybody: contributions are some years, those of the reference around -1000.
    assert np.isfinite(own).all()
    assert (table["percentile"] == 99.5).all()
    assert (table["healthy_high"] < -900).all()
    facts = json.loads((tmp_path / "sub-1" / "sub-1_regions.json").read_text("utf-8"))
    assert facts["gap_reference"]["subjects"] == facts["regions"][0]["healthy"]["subjects"] == 60
