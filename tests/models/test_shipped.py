"""The model that travels with the package: whole, small enough, and still giving the ages it gave."""

from __future__ import annotations

import numpy as np
import pytest
from nilearn.datasets import load_mni152_template
from nilearn.image import resample_img

from brainage.anatomy.grid import MODEL_GRID
from brainage.cli.predict import SHIPPED
from brainage.config import BrainAgeRecipe, load_recipe
from brainage.models.weights import TrainedModel, load_trained
from brainage.predict.predictor import predict_scan
from brainage.preprocess.chain import fingerprint
from brainage.preprocess.normalize import normalised, tissue_landmarks
from brainage.preprocess.template import template_tissues
from brainage.resources import resource

GOLDEN_TEMPLATE_AGE = 41.2  # years, measured when the model was made


@pytest.fixture(scope="module")
def shipped() -> TrainedModel:
    return load_trained(resource(SHIPPED))


@pytest.fixture(scope="module")
def template() -> np.ndarray:
    """The ICBM152 average brain on the model grid, normalised like a scan."""
    image = resample_img(
        load_mni152_template(resolution=2),
        MODEL_GRID.affine,
        MODEL_GRID.shape,
        interpolation="linear",
        copy_header=True,
        force_resample=True,
    )
    raw = image.get_fdata(dtype=np.float32)
    inside, _, _ = template_tissues()
    raw = np.where(inside, raw, 0)
    return normalised(raw, tissue_landmarks(raw))


def test_it_is_small_and_made_by_the_recipe_in_the_package(shipped: TrainedModel) -> None:
    assert resource(SHIPPED).stat().st_size < 20e6
    recipe, made_by = load_recipe(resource("pipelines/brain_age_t1.yaml"), BrainAgeRecipe), shipped.recipe
    # Limits of quality change no volume, and scans are judged by those of today.
    limits = made_by.preprocess.model_copy(update={"qc": recipe.preprocess.qc})
    assert made_by.model_copy(update={"preprocess": limits}) == recipe


def test_it_expects_what_preprocessing_gives(shipped: TrainedModel) -> None:
    assert shipped.facts["preprocessing_fingerprint"] == fingerprint(shipped.recipe.preprocess)


def test_its_residuals_are_better_than_voxel_ridge(shipped: TrainedModel) -> None:
    # 7.6 years is ridge on smoothed voxels on the same folds; see the model card.
    residuals = shipped.residuals_C.numpy()
    assert len(residuals) == shipped.facts["num_scans"] == 237
    assert np.abs(residuals).mean() < 7.0


def test_every_region_by_itself_beats_guessing(shipped: TrainedModel, template: np.ndarray) -> None:
    assert shipped.regional is not None
    assert shipped.regional.informative_R.all()
    assert shipped.regional.error_R.max() < 18
    looks = predict_scan(shipped, template).regional_R
    assert looks is not None
    # An average of many young brains, blurred, of no one scanner: somewhere in adult life.
    assert 10 < np.median(looks) < 90


def test_the_template_keeps_its_age(shipped: TrainedModel, template: np.ndarray) -> None:
    assert predict_scan(shipped, template).age == pytest.approx(GOLDEN_TEMPLATE_AGE, abs=1.0)


def test_contributions_sum_to_the_age(shipped: TrainedModel, template: np.ndarray) -> None:
    prediction = predict_scan(shipped, template)
    total = prediction.baseline + prediction.contributions_N.astype(float).sum()
    assert total == pytest.approx(prediction.age, abs=1e-4)


def test_a_brain_and_its_mirror_image_get_nearly_one_age(shipped: TrainedModel, template: np.ndarray) -> None:
    lopsided = template.copy()
    lopsided[30:50, 40:60, 30:50] *= 0.9
    there = predict_scan(shipped, lopsided).age
    assert predict_scan(shipped, lopsided[::-1]).age == pytest.approx(there, abs=3.0)
