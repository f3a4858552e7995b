"""The parcellation in ``atlases/brainage``: its build, its sides and its anatomy."""

import gzip
import importlib.util
import re
import sys

import numpy as np
import pytest

from brainage.anatomy.atlas import GROUPS
from brainage.anatomy.grid import MODEL_GRID

# Region names that the labels of Dosenbach et al. 2010 imply.
DOSENBACH = {
    "frontal lobe": "PFC|dFC|vFC|mFC|SMA|frontal|precentral",
    "parietal lobe": "parietal|IPL|IPS|precuneus|angular",
    "temporal lobe": "temporal|fusiform",
    "occipital lobe": "occipital",
    "cingulate cortex": "ACC|cingulate",
    "insula": "insula",
    "basal ganglia": "basal",
    "thalamus": "thalamus",
    "cerebellum": "cerebellum",
}


def test_a_rebuild_gives_the_shipped_bytes(repository, tmp_path):
    folder = repository / "atlases" / "brainage"
    spec = importlib.util.spec_from_file_location("atlas_build", folder / "build.py")
    build = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = build
    spec.loader.exec_module(build)
    build.build(tmp_path)
    volume, table = (f"{build.STEM}{suffix}" for suffix in (".nii.gz", ".tsv"))
    assert (tmp_path / table).read_bytes() == (folder / table).read_bytes()
    rebuilt, shipped = (tmp_path / volume).read_bytes(), (folder / volume).read_bytes()
    # Another zlib may compress the same image to other bytes.
    assert gzip.decompress(rebuilt) == gzip.decompress(shipped)
    assert shipped[4:8] == rebuilt[4:8] == bytes(4), "a time stamp in the gzip header"


def test_table(atlas):
    regions = atlas.regions
    assert len(regions) == 28
    assert set(np.unique(atlas.labels)) == {0, *regions["index"]}
    assert regions["name"].is_unique
    assert tuple(dict.fromkeys(regions["group"])) == GROUPS
    assert (regions["hemisphere"].isin(["L", "R"]) == regions["name"].str.contains(r" [LR]$")).all()


def test_left_is_at_negative_x_and_the_sides_mirror_each_other(atlas):
    mirrored = np.zeros(29, int)
    for index, name in zip(atlas.regions["index"], atlas.regions["name"], strict=True):
        partner = re.sub("[LR]$", lambda side: "LR"[side.group() == "L"], name)
        mirrored[index] = atlas.regions.set_index("name").loc[partner, "index"]
    np.testing.assert_array_equal(mirrored[atlas.labels[::-1]], atlas.labels)
    left = atlas.labels[: MODEL_GRID.shape[0] // 2]
    sides = atlas.regions.set_index("index")["hemisphere"]
    assert "R" not in set(sides[np.unique(left[left > 0])])


# Textbook positions, mm of MNI152; the last letter of the answer is the side.
@pytest.mark.parametrize(
    ("xyz", "name"),
    [
        ((-41, -17, 61), "frontal lobe L"),  # hand area of the motor cortex
        ((57, 15, 15), "frontal lobe R"),  # inferior frontal gyrus
        ((-45, -35, 50), "parietal lobe L"),  # anterior intraparietal
        ((45, -60, 45), "parietal lobe R"),  # angular gyrus
        ((-60, -20, -10), "temporal lobe L"),  # middle temporal gyrus
        ((40, 15, -34), "temporal lobe R"),  # temporal pole
        ((-9, -95, 0), "occipital lobe L"),  # primary visual cortex
        ((5, 38, 15), "cingulate cortex R"),
        ((-37, 5, 3), "insula L"),
        ((26, -21, -15), "medial temporal R"),  # hippocampus
        ((-23, -5, -20), "medial temporal L"),  # amygdala
        ((13, 11, 10), "basal ganglia R"),  # caudate
        ((-27, 3, 1), "basal ganglia L"),  # putamen
        ((11, -19, 7), "thalamus R"),
        ((-7, 1, 17), "lateral ventricle L"),
        ((25, 25, 21), "anterior white matter R"),
        ((-27, -45, 27), "posterior white matter L"),
        ((29, -65, -41), "cerebellum R"),
        ((1, -31, -31), "brainstem"),  # pons
        ((1, -45, -32), "third and fourth ventricle"),
    ],
)
def test_landmarks(label_at, xyz, name):
    assert label_at(*xyz) == name


def test_published_regions_lie_in_the_region_of_their_name(atlas):
    from nilearn.datasets import fetch_coords_dosenbach_2010

    published = fetch_coords_dosenbach_2010()
    axes = (o + 2 * np.arange(n) for o, n in zip(MODEL_GRID.origin, MODEL_GRID.shape, strict=True))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    index = atlas.regions.set_index("name")["index"]
    found = []
    for label, xyz in zip(published.labels, published.rois[["x", "y", "z"]].to_numpy(), strict=True):
        named = [region for region, words in DOSENBACH.items() if re.search(words, label)]
        if named:
            sides = "LR" if abs(xyz[0]) <= 3 else "R" if xyz[0] > 0 else "L"
            near = atlas.labels[((grid - xyz) ** 2).sum(axis=-1) <= 5**2]
            found.append(any((near == index[f"{named[0]} {side}"]).any() for side in sides))
    assert len(found) == 159
    assert np.mean(found) > 0.85


def test_volumes_are_those_of_a_brain(atlas):
    ml = dict(zip(atlas.regions["name"], atlas.volumes_ml, strict=True))
    assert 1700 < sum(ml.values()) < 2200
    assert 5 < ml["lateral ventricle L"] < 15
    assert 180 < ml["frontal lobe L"] < 240
    assert ml["frontal lobe L"] > ml["temporal lobe L"] > ml["occipital lobe L"] > ml["insula L"]
