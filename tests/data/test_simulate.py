"""The simulated cohort: files, truth, determinism, and that what should age does."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brainage.anatomy.atlas import GROUPS, built_in
from brainage.anatomy.grid import MODEL_GRID
from brainage.anatomy.projection import to_native
from brainage.data import simulated_scan
from brainage.data.aging import (
    RATES,
    REFERENCE_AGE,
    SULCAL,
    base_name,
    deformation,
    growth_map,
    template_anatomy,
    true_volumes,
    widened_sulci,
)
from brainage.data.cohort import find_scans
from brainage.data.simulate import OLDEST, YOUNGEST, _people, simulate_cohort
from brainage.data.simulated_scan import simulate_scan
from brainage.errors import ConfigError, InputError
from brainage.evaluate.ages import is_simulated


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort")
    counts = []
    simulate_cohort(out, 2, seed=5, done=counts.append)
    assert counts == [1, 2]
    return out


@pytest.fixture(scope="module")
def truth(cohort):
    return pd.read_csv(cohort / "simulation_truth.tsv", sep="\t")


@pytest.fixture(scope="module")
def young_and_old():
    """The same person, in the same scanner, at two ages."""
    return simulate_scan(25.0, "F", 0, 11), simulate_scan(80.0, "F", 0, 11)


def test_the_cohort_is_bids_and_says_that_it_is_simulated(cohort):
    description = json.loads((cohort / "dataset_description.json").read_text("utf-8"))
    assert description["Simulated"] is True
    assert "Simulated" in description["Name"]
    people = pd.read_csv(cohort / "participants.tsv", sep="\t")
    assert list(people.columns) == ["participant_id", "age", "sex"]
    assert list(people["participant_id"]) == ["sub-01", "sub-02"]
    assert people["age"].between(YOUNGEST, OLDEST).all()
    assert json.loads((cohort / "participants.json").read_text("utf-8"))["age"]["Units"] == "year"
    for name in people["participant_id"]:
        assert (cohort / name / "anat" / f"{name}_T1w.nii.gz").is_file()
        assert (
            json.loads((cohort / name / "anat" / f"{name}_T1w.json").read_text("utf-8"))["Simulated"] is True
        )
    assert not list(cohort.rglob(".partial*"))
    assert is_simulated(cohort)
    scans, problems = find_scans(cohort)
    assert [scan.participant_id for scan in scans] == list(people["participant_id"])
    assert problems == []


def test_scans_vary_in_orientation_and_voxel_size_and_are_stripped(cohort):
    images = [nib.load(path) for path in sorted(cohort.glob("sub-*/anat/*.nii.gz"))]
    assert len({nib.aff2axcodes(image.affine) for image in images}) == 2
    assert len({image.header.get_zooms() for image in images}) == 2
    for image in images:
        data = np.asarray(image.dataobj)
        assert data.dtype == np.int16
        assert all(1 <= size <= 1.5 for size in image.header.get_zooms())
        brain = data > 0
        litres = brain.sum() * np.prod(image.header.get_zooms()) / 1e6
        assert 1.2 < litres < 2.4
        rim = np.ones(data.shape, bool)
        rim[1:-1, 1:-1, 1:-1] = False
        assert not brain[rim].any(), "brain at the edge of the field of view"
        assert image.header["sform_code"] == image.header["qform_code"] == 1
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)


def test_truth_names_the_regions_of_the_atlas_and_their_rates(cohort, truth):
    names = [*built_in().regions["name"], SULCAL]
    for _, rows in truth.groupby("participant_id"):
        assert list(rows["region"]) == names
    assert (truth["set_rate"] == [RATES[base_name(name)] for name in truth["region"]]).all()
    people = pd.read_csv(cohort / "participants.tsv", sep="\t").set_index("participant_id")
    years = people.loc[truth["participant_id"], "age"].to_numpy() - REFERENCE_AGE
    np.testing.assert_allclose(truth["set_change"], truth["set_rate"] * years, atol=1e-6)
    described = json.loads((cohort / "simulation_truth.json").read_text("utf-8"))
    assert described["Seed"] == 5
    assert described["LogVolumeChangePerYear"] == dict(RATES)
    assert len(GROUPS) == 9
    assert set(map(base_name, names)) == set(RATES)


def test_true_volumes_follow_what_was_set(truth):
    wanted = truth["set_change"] + truth["own_change"]
    got = np.log(truth["true_ml"] / truth["template_ml"])
    assert np.corrcoef(wanted, got)[0, 1] > 0.95
    # The work grid is 2 mm: small regions are blurred, but none misses by much.
    assert (np.abs(got - wanted) < 0.06 + 0.25 * np.abs(wanted)).all()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(cohort, tmp_path):
    again = simulate_cohort(tmp_path / "again", 2, seed=5)
    for path in sorted(path for path in cohort.rglob("*") if path.is_file()):
        assert (again / path.relative_to(cohort)).read_bytes() == path.read_bytes(), path.name
    assert not _people(3, 5).equals(_people(3, 6))
    one, other = (
        simulated_scan._own_changes(np.random.default_rng([seed, 0]), ("insula L",)) for seed in (5, 6)
    )
    assert one != other


def test_ages_cover_the_range_evenly():
    for count in (1, 4, 30):
        ages = np.sort(_people(count, 3)["age"])
        edges = YOUNGEST + (OLDEST - YOUNGEST) * np.arange(count + 1) / count
        assert ((ages >= edges[:-1]) & (ages <= edges[1:])).all()
    assert set(_people(30, 3)["sex"].value_counts()) == {15}


def dark_ml_near_the_ventricles(scan):
    """Volume (ml, in the scan) of fluid where the lateral ventricles of any age lie."""
    central = np.isin(built_in().labels, [15, 16, 17, 18, 19, 20, 27])
    image = nib.Nifti1Image(central.astype(np.float32), MODEL_GRID.affine)
    back = np.linalg.inv(scan.mni_to_native)
    region = to_native(image, back, scan.image.shape, scan.image.affine).get_fdata() > 0.5
    data = np.asarray(scan.image.dataobj)
    fluid = region & (data < 0.35 * np.percentile(data[data > 0], 98))
    return fluid.sum() * np.prod(scan.image.header.get_zooms()) / 1000


def test_ventricles_measured_in_the_scan_grow_with_age(young_and_old):
    young, old = map(dark_ml_near_the_ventricles, young_and_old)
    assert 5 < young < 40
    assert old > 1.5 * young


@pytest.mark.parametrize("index", [1, 4])
def test_what_grows_on_the_left_lies_on_the_left_however_it_is_stored(monkeypatch, index):
    def left_only(rng, names):
        return {**dict.fromkeys(names, 0.0), "lateral ventricle L": 0.9, SULCAL: 0.0}

    monkeypatch.setattr(simulated_scan, "_own_changes", left_only)
    scan = simulate_scan(REFERENCE_AGE, "F", index, 3)
    data = np.asarray(scan.image.dataobj)
    to_mni = np.linalg.inv(scan.mni_to_native) @ scan.image.affine
    dark = np.argwhere((data > 0) & (data < 0.3 * np.percentile(data[data > 0], 98)))
    xyz = nib.affines.apply_affine(to_mni, dark)
    x = xyz[(np.abs(xyz - [0, -15, 14]) < [24, 45, 14]).all(axis=1)][:, 0]
    assert (x < 0).sum() > 1.25 * (x > 0).sum()


@pytest.mark.parametrize("index", range(7))
def test_the_stored_grid_holds_the_brain_in_its_orientation(index):
    rng = np.random.default_rng(index)
    pose = simulated_scan._pose(rng, 1.0)
    shape, affine = simulated_scan._stored_grid(rng, index, pose)
    assert nib.aff2axcodes(affine) == tuple(simulated_scan._CODES[index])
    brain = nib.affines.apply_affine(MODEL_GRID.affine, np.argwhere(built_in().labels > 0))
    voxels = nib.affines.apply_affine(np.linalg.inv(affine) @ pose, brain)
    assert (voxels > 1).all()
    assert (voxels < np.array(shape) - 2).all()


def test_only_the_regions_with_a_rate_change():
    anatomy = template_anatomy()
    change = {"lateral ventricle L": 0.8}
    back = deformation(growth_map(anatomy, change), np.zeros((3, *anatomy.labels.shape), np.float32))
    still = true_volumes(anatomy, np.zeros_like(back), anatomy.sulci)
    grown = true_volumes(anatomy, back, widened_sulci(anatomy, change))
    ratio = {name: grown[name] / still[name] for name in still}
    assert ratio["lateral ventricle L"] > 1.6
    # Neighbours share blurred voxels with what grew; they change by far less.
    others = {name: r for name, r in ratio.items() if name != "lateral ventricle L"}
    assert max(abs(r - 1) for r in others.values()) < 0.1
    assert np.median([abs(r - 1) for r in others.values()]) < 0.02


def test_growth_is_balanced_by_the_space_around_the_brain():
    growth = growth_map(template_anatomy(), {"frontal lobe L": -0.3, SULCAL: 0.5})
    assert abs(growth.mean()) < 1e-5


def test_refusals(tmp_path, cohort):
    with pytest.raises(ConfigError, match="subjects"):
        simulate_cohort(tmp_path / "none", 0)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="other content"):
        simulate_cohort(tmp_path, 1)
    with pytest.raises(InputError, match="found a file"):
        simulate_cohort(tmp_path / "notes.txt", 1)
    with pytest.raises(InputError, match="sub-02 of another simulated cohort"):
        simulate_cohort(cohort, 1)
