"""Heads are stripped, stripped scans recognised, and the head template is what it says."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from scipy import ndimage

from brainage.preprocess import brain_extraction
from brainage.preprocess.brain_extraction import BrainExtractiond
from brainage.preprocess.head_registration import BRAIN_FILE, HEAD_FILE
from brainage.preprocess.itk import array_from_image, image_from_array
from brainage.preprocess.stripped import is_stripped


def dice(first, second):
    first, second = np.asarray(first) > 0, np.asarray(second) > 0
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def tensor(array, affine):
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(array))[None], affine=torch.from_numpy(affine))


@pytest.fixture(scope="module")
def head(template):
    """A made-up head around the template brain at 2 mm: intensities, mask with fluid, affine.

    Fluid 3 mm thick, bone 6 mm, scalp 6 mm, a neck, and noise in the air.
    """
    pad = 16
    brain = np.pad(template.get_fdata(dtype=np.float32), pad)
    affine = template.affine.copy()
    affine[:3, 3] -= 2.0 * pad
    hull = ndimage.binary_fill_holes(ndimage.binary_closing(brain > 0, iterations=6))
    outside = ndimage.distance_transform_edt(~hull, sampling=2.0)
    inside = outside <= 3.0
    rng = np.random.default_rng(0)
    noisy = rng.normal(0, 12, brain.shape)
    grid = np.indices(brain.shape).astype(float)
    x, y, z = (2.0 * grid[i] + affine[i, 3] for i in range(3))
    neck = (np.hypot(x, y + 45) < 55) & (z < -50) & (outside > 9)
    values = np.where(outside <= 15, 900.0, 0.0)
    values[neck] = 500.0
    values[outside <= 9] = 40.0
    values[inside] = 150.0
    values[hull & (brain > 0)] = brain[hull & (brain > 0)]
    return np.abs(values + noisy).astype(np.float32), inside, affine


@pytest.fixture(scope="module")
def turned_head(head):
    """The same head nodding and turned on a grid of 2.2 x 2.6 x 3 mm, far from the origin."""
    values, inside, affine = head
    nod, turn = np.radians(18), np.radians(-8)
    about_x = np.array([[1, 0, 0], [0, np.cos(nod), -np.sin(nod)], [0, np.sin(nod), np.cos(nod)]])
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    to_world = np.eye(4)
    to_world[:3, :3], to_world[:3, 3] = about_z @ about_x, (25, -40, 60)
    size = np.array([2.2, 2.6, 3.0])
    shape = np.ceil(np.array(values.shape) * 2.0 / size).astype(int) + 6
    coarse = np.diag([*size, 1.0])
    middle = (to_world @ affine @ [*(np.array(values.shape) / 2), 1])[:3]
    coarse[:3, 3] = middle - coarse[:3, :3] @ (shape / 2)
    reference = image_from_array(np.zeros(shape, np.float32), coarse)
    moved = [
        array_from_image(
            sitk.Resample(
                image_from_array(a.astype(np.float32), to_world @ affine), reference, sitk.Transform(), how
            )
        )
        for a, how in ((values, sitk.sitkLinear), (inside, sitk.sitkNearestNeighbor))
    ]
    return moved[0], moved[1], coarse


def test_a_turned_head_on_coarse_voxels_is_stripped(turned_head):
    values, inside, affine = turned_head
    data = BrainExtractiond()({"image": tensor(values, affine), "qc": {"other": 1.0}})
    mask = data["brain_mask"]
    assert data["stripped"] is False
    assert dice(mask[0].numpy(), inside) > 0.9
    assert mask.dtype == torch.uint8
    assert mask.shape == data["image"].shape
    assert np.allclose(mask.affine, affine)
    assert data["qc"]["other"] == 1.0
    assert data["qc"]["head_ncc"] > 0.6


def test_a_stripped_scan_keeps_its_brain_and_loses_specks(template):
    values = template.get_fdata(dtype=np.float32).copy()
    brain = values > 0
    values[40:44, 50:54, 45:49] = 0  # a hole
    values[2, 2, 2] = 500  # a speck
    data = BrainExtractiond()({"image": tensor(values, template.affine)})
    mask = data["brain_mask"][0].numpy() > 0
    assert data["stripped"] is True
    assert mask[40:44, 50:54, 45:49].all()
    assert not mask[2, 2, 2]
    assert dice(mask, brain) > 0.98


def test_the_modes_overrule_the_detection(head):
    values, _, affine = head
    kept = BrainExtractiond("never")({"image": tensor(values + 1, affine)})
    assert kept["stripped"] is True
    assert kept["brain_mask"].all()
    assert "head_ncc" not in kept["qc"]
    with pytest.raises(ValueError, match="modes auto, always, never"):
        BrainExtractiond("sometimes")


def test_erased_air_and_face_do_not_make_a_head_stripped(head):
    values, inside, _ = head
    body = ndimage.binary_fill_holes(ndimage.binary_opening(values > 200, iterations=1) | inside)
    erased = np.where(body, values, 0)
    erased[:, 85:, :55] = 0  # the face
    assert np.mean(erased == 0) > 0.5
    assert not is_stripped(erased, np.full(3, 2.0))


def test_a_scan_without_a_head_is_refused_in_one_sentence():
    noise = np.random.default_rng(0).uniform(0, 1, (40, 40, 40)).astype(np.float32)
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        BrainExtractiond("always")({"image": tensor(noise, np.diag([2.0, 2.0, 2.0, 1.0]))})
    with pytest.raises(ValueError, match="empty"):
        BrainExtractiond("never")({"image": tensor(np.zeros_like(noise), np.eye(4))})


def test_a_t2_weighted_head_is_named_as_such(head, monkeypatch):
    values, _, affine = head
    found = SimpleNamespace(ncc=-0.8, brain_on=lambda scan: np.ones(values.shape, np.float32))
    monkeypatch.setattr(brain_extraction, "align_head", lambda *_: found)
    with pytest.raises(ValueError, match=r"other way round .* T2-weighted one: correlation -0.80"):
        BrainExtractiond("always")({"image": tensor(values, affine)})


def test_the_head_template_is_whole(repository):
    folder = repository / "atlases" / "head_template"
    head, brain = nib.load(folder / HEAD_FILE), nib.load(folder / BRAIN_FILE)
    values, share = head.get_fdata(), brain.get_fdata()
    assert head.shape == brain.shape == (99, 117, 101)
    assert np.allclose(head.affine, brain.affine)
    assert nib.aff2axcodes(head.affine) == ("R", "A", "S")
    assert np.allclose(nib.affines.voxel_sizes(head.affine), 2.0)
    assert share.min() == 0
    assert share.max() == pytest.approx(1)
    assert 1300 < (share > 0.5).sum() * 0.008 < 2100
    # The middle of x is 0 and the sides are alike, up to rounding to 1/100.
    assert head.affine[0, 3] == -98
    assert np.abs(values - values[::-1]).max() < 0.011
    assert np.abs(share - share[::-1]).max() < 0.011
    assert 0.9 < np.median(values[share > 0.9]) < 1.1
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2e6
    # An average: shares of four heads and their mirror images, each interpolated, are not zero or one alone.
    assert len(np.unique(share)) > 20
    # Frontwards is front: the face lies before the brain, the air behind it is dark.
    assert values[:, -8:, :30].mean() > 2 * values[:, :8, :30].mean()


def test_the_template_brain_is_that_of_icbm(repository, template):
    share = nib.load(repository / "atlases" / "head_template" / BRAIN_FILE)
    ours = image_from_array(share.get_fdata(dtype=np.float32), share.affine)
    icbm = image_from_array((template.get_fdata() > 0).astype(np.uint8), template.affine)
    there = array_from_image(sitk.Resample(icbm, ours, sitk.Transform(), sitk.sitkNearestNeighbor))
    assert dice(share.get_fdata() > 0.5, there) > 0.9


@pytest.mark.parametrize("subject", ["sub-LH01", "sub-IXI014"])
def test_real_heads_are_no_stripped_scans(shared_data, subject):
    image = nib.as_closest_canonical(
        nib.load(shared_data("whole_head") / subject / "anat" / f"{subject}_T1w.nii.gz")
    )
    assert not is_stripped(np.asarray(image.dataobj, dtype=np.float32), nib.affines.voxel_sizes(image.affine))


def test_real_stripped_scans_are(shared_data):
    native = sorted(shared_data("stripped_native").glob("sub-*/anat/*_T1w.nii.gz"))
    oasis = sorted(shared_data("oasis1").glob("sub-*/ses-*/anat/*_T1w.nii.gz"))[::40]
    for path in (*native, *oasis):
        image = nib.as_closest_canonical(nib.load(path))
        values = np.asarray(image.dataobj, dtype=np.float32)
        assert is_stripped(values, nib.affines.voxel_sizes(image.affine)), path.name


def test_a_real_head_against_its_labels(shared_data):
    """The template holds this head among three others; without it, Dice is 0.98 as well (see its README)."""
    subject = "sub-IXI033"
    path = shared_data("whole_head") / subject / "anat" / f"{subject}_T1w.nii.gz"
    labels = shared_data("whole_head_labels") / f"{subject}_desc-dlmuse_dseg.nii.gz"
    image, truth = (nib.as_closest_canonical(nib.load(file)) for file in (path, labels))
    values = np.asarray(image.dataobj, dtype=np.float32)
    data = BrainExtractiond()({"image": tensor(values, image.affine)})
    assert dice(data["brain_mask"][0].numpy(), np.asarray(truth.dataobj)) > 0.96
