import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Compose, Lambda

from brainage.anatomy.grid import MODEL_GRID
from brainage.config import PreprocessRecipe, parse_recipe
from brainage.data.cohort import scan_of
from brainage.errors import InputError
from brainage.preprocess import chain
from brainage.preprocess.chain import QualityError, fingerprint, preprocess_scan
from brainage.preprocess.load import LoadScand
from brainage.preprocess.outputs import find_preprocessed

RECIPE = PreprocessRecipe()


@pytest.fixture
def quick(monkeypatch):
    """A chain that loads and then pretends: ``change`` alters what it ends with, ``runs`` counts."""

    class Quick:
        runs = 0

        def change(self, data):
            return data

    state = Quick()

    def pretend(data):
        state.runs += 1
        affine = torch.from_numpy(MODEL_GRID.affine)
        return state.change(
            data
            | {
                "brain_mask": MetaTensor(
                    (data["image"].as_tensor() > 100).to(torch.uint8), affine=data["image"].affine
                ),
                "stripped": True,
                "native_to_mni": np.eye(4),
                "volume": MetaTensor(torch.ones(1, *MODEL_GRID.shape), affine=affine),
                "qc": {"registration_ncc": 0.6},
            }
        )

    monkeypatch.setattr(chain, "preprocess_chain", lambda recipe: Compose([LoadScand(), Lambda(pretend)]))
    return state


@pytest.fixture(scope="module")
def real(template, tmp_path_factory):
    """The template's brain, turned, shrunk, stored as LPS, taken through the real chain."""
    folder = tmp_path_factory.mktemp("real")
    to_world = np.diag([0.92, 0.9, 0.94, 1.0])
    to_world[:3, 3] = [12, -20, 25]
    image = nib.Nifti1Image(template.get_fdata(dtype=np.float32), to_world @ template.affine)
    image = image.as_reoriented(nib.orientations.axcodes2ornt("LPS"))
    image.header.set_xyzt_units("mm")
    path = folder / "bids" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    nib.save(image, path)
    done = preprocess_scan(scan_of(path), folder / "out", PreprocessRecipe(n4_shrink_mm=8))
    return image, to_world, done


def test_the_way_to_the_template_is_found(real):
    _, to_world, done = real
    points = np.array([[0, -18, 8, 1], [60, -20, 0, 1], [0, 60, 10, 1], [0, -20, 70, 1]], float).T
    assert np.linalg.norm(done.native_to_mni @ to_world @ points - points, axis=0).max() < 2
    assert done.qc["scale"] == pytest.approx(1 / (0.92 * 0.9 * 0.94), rel=0.05)


def test_the_volume_is_normalised_and_the_mask_is_native(real):
    image, _, done = real
    volume = done.volume()
    assert volume.shape == MODEL_GRID.shape
    assert np.percentile(volume[volume > 0], 90) == pytest.approx(1, abs=0.1)
    mask = nib.load(done.mask_path)
    assert nib.aff2axcodes(mask.affine) == ("L", "P", "S")
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
    brain = np.asarray(image.dataobj) > 0
    assert 2 * (done.native_mask() & brain).sum() / (done.native_mask().sum() + brain.sum()) > 0.97
    assert done.stripped
    # The template is symmetric, so that which of its sides is left is a guess.
    assert [warning for warning in done.warnings if "left_right" not in warning] == []


def test_the_sidecar_tells_origin_and_settings_and_no_folder(real):
    _, _, done = real
    text = done.volume_path.with_name(done.volume_path.name.replace(".nii.gz", ".json")).read_text("utf-8")
    facts = json.loads(text)
    assert facts["Sources"] == ["sub-01/anat/sub-01_T1w.nii.gz"]
    assert len(facts["SourceSHA256"]) == 64
    assert facts["Recipe"] == PreprocessRecipe(n4_shrink_mm=8).model_dump(mode="json")
    assert facts["Fingerprint"] == done.fingerprint == fingerprint(PreprocessRecipe(n4_shrink_mm=8))
    assert str(done.volume_path.parents[3]) not in text
    assert "SimpleITK" in facts["Versions"]


def test_fingerprints_tell_settings_apart():
    assert fingerprint(RECIPE) == fingerprint(PreprocessRecipe())
    assert fingerprint(RECIPE) != fingerprint(PreprocessRecipe(n4_shrink_mm=3))
    assert fingerprint(RECIPE) != fingerprint(PreprocessRecipe(brain_extraction="never"))
    assert fingerprint(RECIPE) != fingerprint(PreprocessRecipe(bias_correction=False))
    one, other = (PreprocessRecipe(mask=f"{folder}/{{name}}.nii.gz") for folder in ("a", "b"))
    assert fingerprint(RECIPE) != fingerprint(one) == fingerprint(other)


def test_what_is_done_is_skipped_until_something_changes(quick, save, noise, tmp_path):
    scan = scan_of(save(noise))
    out = tmp_path / "out"
    first = preprocess_scan(scan, out, RECIPE)
    again = preprocess_scan(scan, out, RECIPE)
    assert quick.runs == 1
    assert again.volume_path == first.volume_path
    assert again.resumed
    assert not first.resumed
    preprocess_scan(scan, out, RECIPE, force=True)
    assert quick.runs == 2
    preprocess_scan(scan, out, PreprocessRecipe(n4_shrink_mm=5))
    assert quick.runs == 3
    save(noise + 1)
    preprocess_scan(scan, out, PreprocessRecipe(n4_shrink_mm=5))
    assert quick.runs == 4


@pytest.mark.parametrize("which", ["volume_path", "mask_path"])
def test_a_corrupted_output_is_made_again(quick, save, noise, tmp_path, which):
    scan = scan_of(save(noise))
    done = preprocess_scan(scan, tmp_path / "out", RECIPE)
    path = getattr(done, which)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    preprocess_scan(scan, tmp_path / "out", RECIPE)
    assert quick.runs == 2
    assert path.read_bytes() == content


def test_warnings_of_loading_and_of_quality_reach_the_result(quick, save, noise, tmp_path):
    noise[0, 0, 0] = np.nan
    quick.change = lambda data: data | {"qc": {"registration_ncc": 0.4}}
    done = preprocess_scan(scan_of(save(noise)), tmp_path / "out", RECIPE)
    assert len(done.warnings) == 2
    assert "NaN" in done.warnings[0]
    assert "registration_ncc 0.4" in done.warnings[1]


def test_a_finished_scan_is_judged_by_the_limits_of_the_day(quick, save, noise, tmp_path):
    scan, out = scan_of(save(noise)), tmp_path / "out"

    def limits(good, usable):
        return parse_recipe({"qc": {"registration_ncc": {"good": good, "usable": usable}}}, PreprocessRecipe)

    assert not preprocess_scan(scan, out, RECIPE).warnings
    before = sorted(path for path in out.rglob("*") if path.is_file())
    strict = preprocess_scan(scan, out, limits([0.7, None], [0.5, None]))
    assert len(strict.warnings) == 1
    assert "registration_ncc 0.6" in strict.warnings[0]
    # What stands there is what an undisturbed run by these limits leaves.
    sidecar = next(out.rglob("*preproc_T1w.json")).read_text("utf-8")
    preprocess_scan(scan, out, limits([0.7, None], [0.5, None]), force=True)
    assert next(out.rglob("*preproc_T1w.json")).read_text("utf-8") == sidecar
    assert not preprocess_scan(scan, out, RECIPE).warnings
    assert quick.runs == 2
    assert sorted(path for path in out.rglob("*") if path.is_file()) == before
    with pytest.raises(QualityError, match=r"registration_ncc 0\.6"):
        preprocess_scan(scan, out, limits([0.8, None], [0.7, None]))
    assert find_preprocessed(out) == []


def test_a_clear_failure_leaves_no_result_not_even_an_old_one(quick, save, noise, tmp_path):
    scan = scan_of(save(noise))
    preprocess_scan(scan, tmp_path / "out", RECIPE)
    quick.change = lambda data: data | {"qc": {"registration_ncc": 0.05}}
    with pytest.raises(QualityError, match="hardly resembles the template") as caught:
        preprocess_scan(scan, tmp_path / "out", RECIPE, force=True)
    assert caught.value.qc == {"registration_ncc": 0.05}
    assert find_preprocessed(tmp_path / "out") == []


@pytest.mark.parametrize(
    "error",
    [
        ValueError("grey matter is not darker\nthan white matter"),
        RuntimeError("Exception thrown in SimpleITK: file.cxx:1:\nsitk::ERROR: itk::ERROR: too few samples"),
        MemoryError(),
    ],
)
def test_errors_of_transforms_become_one_sentence(quick, save, noise, tmp_path, error):
    def fail(data):
        raise error

    quick.change = fail
    with pytest.raises(InputError) as caught:
        preprocess_scan(scan_of(save(noise)), tmp_path / "out", RECIPE)
    sentence = str(caught.value)
    assert sentence.startswith("sub-01_T1w.nii.gz: ")
    assert "\n" not in sentence
    assert find_preprocessed(tmp_path / "out") == []


def test_names_too_long_for_the_outputs_are_refused_before_the_work(quick, save, noise, tmp_path):
    short, long = (scan_of(save(noise, name=f"sub-{'x' * length}_T1w.nii.gz")) for length in (180, 230))
    preprocess_scan(short, tmp_path / "out", RECIPE)
    with pytest.raises(InputError, match="a name that would make an output's name 289 letters long"):
        preprocess_scan(long, tmp_path / "out", RECIPE)
    assert quick.runs == 1


def test_errors_of_loading_are_passed_on(quick, save, noise, tmp_path):
    with pytest.raises(InputError, match="a 4-D image"):
        preprocess_scan(scan_of(save(np.stack([noise, noise], -1))), tmp_path / "out", RECIPE)
    with pytest.raises(InputError, match="no such file"):
        preprocess_scan(scan_of(tmp_path / "sub-02_T1w.nii.gz"), tmp_path / "out", RECIPE)


def test_bugs_stay_what_they_are(quick, save, noise, tmp_path):
    def fail(data):
        raise KeyError("image")

    quick.change = fail
    with pytest.raises(KeyError):
        preprocess_scan(scan_of(save(noise)), tmp_path / "out", RECIPE)


def test_a_real_stripped_scan(shared_data, tmp_path):
    path = sorted(shared_data("stripped_native").glob("sub-*/anat/*_T1w.nii.gz"))[0]
    done = preprocess_scan(scan_of(path), tmp_path, RECIPE)
    assert done.stripped
    assert 1000 < done.qc["brain_volume_ml"] < 1700
    assert done.qc["registration_ncc"] > 0.45
    assert done.native_mask().shape == nib.load(path).shape


def test_the_fingerprint_counts_only_what_changes_volumes() -> None:
    default = fingerprint(PreprocessRecipe())
    assert fingerprint(PreprocessRecipe(brain_extraction="auto")) == default
    assert fingerprint(PreprocessRecipe(brain_extraction="never")) != default
