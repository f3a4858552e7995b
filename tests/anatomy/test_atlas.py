"""Atlases from files: what is taken, what is derived, what is refused."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brainage.anatomy.atlas import GROUPS, load_atlas
from brainage.anatomy.grid import MODEL_GRID
from brainage.errors import InputError


def test_the_built_in_atlas_by_path_is_the_built_in_atlas(atlas, written):
    again = load_atlas(*written())
    np.testing.assert_array_equal(again.labels, atlas.labels)
    pd.testing.assert_frame_equal(again.regions, atlas.regions)
    assert again.name == "test"


@pytest.mark.parametrize("codes", ["LPS", "PSR", "AIL"])
def test_other_axis_orders_are_the_same_atlas(atlas, written, codes):
    image = nib.Nifti1Image(atlas.labels.astype(np.uint8), MODEL_GRID.affine)
    turned = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes)
    )
    path, table = written(image=image.as_reoriented(turned))
    np.testing.assert_array_equal(load_atlas(path, table).labels, atlas.labels)


def test_hemisphere_and_group_are_derived_where_the_table_lacks_them(atlas, written):
    bare = atlas.regions[["index", "name"]]
    derived = load_atlas(*written(table=bare)).regions
    pd.testing.assert_frame_equal(derived, atlas.regions)


def test_hemisphere_from_the_position_where_names_say_nothing(atlas, written):
    bare = atlas.regions[["index"]].assign(name=[f"area {i}" for i in atlas.regions["index"]])
    assert list(load_atlas(*written(table=bare)).regions["hemisphere"]) == list(atlas.regions["hemisphere"])


@pytest.mark.parametrize(
    "style", ["{n}_L|{n}_R", "lh.{n}|rh.{n}", "Left-{n}|Right-{n}", "7Networks_LH_{n}|7Networks_RH_{n}"]
)
def test_ways_to_write_a_side(written, style):
    left, right = style.format(n="Vis").split("|")
    labels = np.zeros(MODEL_GRID.shape, np.uint8)
    labels[30:35, 40:50, 40:50], labels[45:50, 40:50, 40:50] = 1, 2
    table = {"index": [1, 2], "name": [left, right]}
    assert list(load_atlas(*written(labels, table=table)).regions["hemisphere"]) == ["L", "R"]
    with pytest.raises(InputError, match="on the other side"):
        load_atlas(*written(labels[::-1].copy(), table=table))


def test_a_table_of_all_resolutions_is_found_beside_the_volume(atlas, written, tmp_path):
    path, table = written(name="tpl-MNI152NLin6Asym_res-02_atlas-Own_dseg")
    table.rename(tmp_path / "tpl-MNI152NLin6Asym_atlas-Own_dseg.tsv")
    loaded = load_atlas(path)
    assert (loaded.name, loaded.space) == ("Own", "MNI152NLin6Asym")
    (tmp_path / "tpl-MNI152NLin6Asym_atlas-Own_dseg.tsv").unlink()
    with pytest.raises(InputError, match="no table beside it"):
        load_atlas(path)


def test_ties_between_voxels_fall_alike_on_both_sides(written, atlas):
    """A 2 mm grid with a voxel on the midplane, as FSL's, has each voxel of the model grid between two."""
    affine = np.diag([-2.0, 2, 2, 1])
    affine[:3, 3] = 90, -126, -72
    labels = np.zeros((91, 109, 91), np.uint8)
    labels[20:71, 30:80, 20:70] = 1
    loaded = load_atlas(*written(labels, affine, {"index": [1], "name": ["box"]}))
    np.testing.assert_array_equal(loaded.labels, loaded.labels[::-1])


def shifted(mm):
    affine = MODEL_GRID.affine
    affine[:3, 3] += mm
    return affine


def flipped(axis):
    affine = MODEL_GRID.affine
    affine[axis] *= -1
    affine[axis, 3] += (-36, -36, 14)[axis] if axis else 0
    return affine


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: {"labels": np.stack([a.labels] * 2, -1).astype(np.uint8)}, "4 dimensions"),
        (lambda a: {"labels": a.labels + np.float32(0.5)}, "values that are no labels"),
        (lambda a: {"labels": np.where(a.labels, np.nan, 0).astype(np.float32)}, "values that are no labels"),
        (lambda a: {"labels": -a.labels}, "values that are no labels"),
        (lambda a: {"labels": np.zeros(MODEL_GRID.shape, np.uint8)}, "no labelled voxel"),
        (lambda a: {"table": a.regions[1:]}, "labels in the volume but not in the table: 1;"),
        (
            lambda a: {"labels": np.where(a.labels == 28, 0, a.labels)},
            "in the table but not in the volume: 28;",
        ),
        (lambda a: {"affine": shifted(90)}, "of the labelled volume inside the MNI152 brain"),
        (lambda a: {"affine": flipped(0)}, "on the other side"),
        (lambda a: {"affine": flipped(1)}, "front and back swapped"),
        (lambda a: {"affine": flipped(2)}, "top and bottom swapped"),
        (lambda a: {"name": "sub-01_space-T1w_dseg"}, "space T1w"),
        (lambda a: {"table": a.regions.rename(columns={"name": "title"})}, "columns index, title"),
        (lambda a: {"table": a.regions.assign(index="one")}, "index 'one'"),
        (lambda a: {"table": pd.concat([a.regions, a.regions[:1]])}, "index 1 twice"),
        (lambda a: {"table": a.regions.assign(name="")}, "a region without a name"),
        (lambda a: {"table": a.regions.assign(group="")}, "a region without a group"),
    ],
)
def test_refused_with_the_reason(atlas, written, change, said):
    with pytest.raises(InputError) as error:
        load_atlas(*written(**change(atlas)))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_volume_without_affine_is_refused(atlas, written):
    image = nib.Nifti1Image(atlas.labels.astype(np.uint8), None)
    image.header["qform_code"] = image.header["sform_code"] = 0
    with pytest.raises(InputError, match="no affine"):
        load_atlas(*written(image=image))


def test_files_that_are_no_atlas_are_refused(tmp_path, written):
    path, table = written()
    with pytest.raises(InputError, match="no such file"):
        load_atlas(tmp_path / "absent.nii.gz", table)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="no readable image"):
        load_atlas(path, table)
    path, table = written()
    with pytest.raises(InputError, match="no readable table"):
        load_atlas(path, tmp_path / "absent.tsv")


def test_cerebra(shared_data):
    folder = shared_data("atlases") / "templateflow" / "tpl-MNI152NLin2009cSym"
    loaded = load_atlas(folder / "tpl-MNI152NLin2009cSym_res-1_atlas-CerebrA_dseg.nii.gz")
    assert (loaded.name, loaded.space, len(loaded.regions)) == ("CerebrA", "MNI152NLin2009cSym", 102)
    groups = loaded.regions.set_index("name")["group"]
    assert groups["Precentral L"] == "frontal"
    assert groups["Superior Parietal R"] == "parietal"
    assert groups["Middle Temporal L"] == "temporal"
    assert groups["Pericalcarine R"] == "occipital"
    assert groups["Hippocampus L"] == groups["Insula R"] == groups["Posterior Cingulate L"] == "limbic"
    assert groups["Putamen R"] == groups["Thalamus L"] == "subcortical"
    assert groups["Lateral Ventricle R"] == "ventricles"
    assert groups["Brainstem L"] == groups["Cerebellum White Matter R"] == "cerebellum_brainstem"
    assert set(groups) <= set(GROUPS)


def test_most_of_cerebra_agrees_with_the_built_in_atlas(shared_data, atlas):
    folder = shared_data("atlases") / "templateflow" / "tpl-MNI152NLin2009cSym"
    cerebra = load_atlas(folder / "tpl-MNI152NLin2009cSym_res-1_atlas-CerebrA_dseg.nii.gz")
    ours = dict(zip(atlas.regions["index"], atlas.regions["name"], strict=True))
    for name, expected in {
        "Hippocampus L": "medial temporal L",
        "Thalamus R": "thalamus R",
        "Putamen L": "basal ganglia L",
        "Insula R": "insula R",
        "Lateral Ventricle L": "lateral ventricle L",
        "Precuneus R": "parietal lobe R",
        "Superior Frontal L": "frontal lobe L",
    }.items():
        index = cerebra.regions.set_index("name").loc[name, "index"]
        under = atlas.labels[cerebra.labels == index]
        most = np.bincount(under).argmax()
        assert ours[most] == expected
