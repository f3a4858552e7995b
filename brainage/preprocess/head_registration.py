"""Alignment of a whole head to an average head that carries a brain probability."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from brainage.preprocess.itk import array_from_image, image_from_array, in_parallel
from brainage.preprocess.mutual_information import mutual_information, register
from brainage.resources import resource

FOLDER = "atlases/head_template"
HEAD_FILE = "tpl-MNI152NLin2009aSym_res-2_desc-head_T1w.nii.gz"
BRAIN_FILE = "tpl-MNI152NLin2009aSym_res-2_label-brain_probseg.nii.gz"

# Poses that are tried, degrees: heads nod in the scanner more than they turn or lean to a side.
PITCHES = (-45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0)
TURNS = (-20.0, 0.0, 20.0)
# Voxels on which they are compared, mm, and how many are followed up.
COARSE_SPACING, KEPT_STARTS = 6.0, 3
# So many in all where no likely brain is found: correlation with the template, volume and ratio of the
# affine's singular values that a likely one has.
MORE_STARTS = 18
LIKELY_NCC, LIKELY_ML, LIKELY_STRETCH = 0.7, (700.0, 2300.0), 1.6
# What lies farther below the top of a head is mostly neck, mm.
HEAD_HEIGHT = 160.0
# Descent that is good enough for a start of the next step.
_register_roughly = partial(register, step=2.0, least_step=1e-2, iterations=60)
# The deformable step: voxels, smoothing of its field (mm), iterations.
WARP_SPACING, WARP_SMOOTHING, WARP_ITERATIONS = 4.0, 5.0, 60


class Shades(NamedTuple):
    """The template's intensities in classes.

    Attributes:
        weight: 1 in the brain, 0 away from it, (X, Y, Z).
        inside: where it is above one half, (X, Y, Z) bool.
        bins: class of each of the N voxels inside.
        used: classes that have a voxel.
        centres: mean intensity of each of these.
    """

    weight: np.ndarray
    inside: np.ndarray
    bins: np.ndarray
    used: np.ndarray
    centres: np.ndarray


@dataclass(frozen=True)
class HeadTemplate:
    """An average head in MNI152NLin2009aSym; both images on one grid of 2 mm.

    Attributes:
        head: mean intensity, brain about 1.
        brain: share of the heads that have brain there.
    """

    head: sitk.Image
    brain: sitk.Image

    @cached_property
    def distance(self) -> np.ndarray:
        """Distance to the brain, mm, negative inside."""
        return array_from_image(sitk.SignedMaurerDistanceMap(self.brain > 0.5, False, False, True))

    @cached_property
    def middle(self) -> np.ndarray:
        """(3,) of the head without its neck, LPS mm."""
        return _foreground(self.head)[1].mean(0)

    @cached_property
    def coarse(self) -> sitk.Image:
        """The head on the voxels that poses are compared on."""
        return _isotropic(self.head, COARSE_SPACING)

    @cached_property
    def shades(self) -> Shades:
        """Of the head and what is around the brain, for demons."""
        # Soft, lest the edge of the region be an edge of the images.
        weight = 1.0 / (1.0 + np.exp((self.distance - 16.0) / 2.0))
        inside, head = weight > 0.5, array_from_image(self.head)
        values = head[inside]
        edges = np.quantile(values, np.linspace(0, 1, 25))
        bins = np.clip(np.searchsorted(edges, values) - 1, 0, 23)
        used = np.unique(bins)
        return Shades(weight, inside, bins, used, np.array([values[bins == b].mean() for b in used]))

    def near(self, margin_mm: float) -> sitk.Image:
        """The brain and a margin: face, ears and neck stay out."""
        mask = sitk.GetImageFromArray((self.distance <= margin_mm).astype(np.uint8).transpose(2, 1, 0))
        mask.CopyInformation(self.brain)
        return mask


@lru_cache(maxsize=1)
def load_head_template() -> HeadTemplate:
    """The template that ships with the package."""
    return read_head_template(resource(FOLDER))


def read_head_template(folder: Path) -> HeadTemplate:
    """The template in a folder written by ``atlases/head_template/build.py``."""
    head, brain = (nib.Nifti1Image.from_filename(folder / name) for name in (HEAD_FILE, BRAIN_FILE))
    return HeadTemplate(*(image_from_array(i.get_fdata(dtype=np.float32), i.affine) for i in (head, brain)))


@dataclass(frozen=True)
class HeadAlignment:
    """A scan brought onto the template.

    Attributes:
        affine: points of the template -> points of the scan (LPS mm).
        warp: points of ``scan`` (below) -> points of the template.
        scan: the scan, its brightest voxels capped, on the template's grid by ``affine``.
        brain: the template's brain probability on the same grid, by ``warp``.
        ncc: correlation of ``scan`` and the warped template within 10 mm of the brain.
    """

    affine: sitk.AffineTransform
    warp: sitk.Transform
    scan: sitk.Image
    brain: sitk.Image
    ncc: float

    def brain_on(self, scan: sitk.Image) -> np.ndarray:
        """Brain probability in every voxel of the scan, (X, Y, Z) float32."""
        return array_from_image(sitk.Resample(self.brain, scan, self.affine.GetInverse(), sitk.sitkLinear))


def align_head(scan: sitk.Image, template: HeadTemplate) -> HeadAlignment:
    """Similarity from several starts, affine (Mattes mutual information), then a smooth deformation (demons).

    Mutual information can be high where a brain of half the size fits a part of the head. Where no likely
    brain is found, the next best starts are followed, and what comes of them is given if that is likely.

    Raises:
        ValueError: the scan shows no head.
    """
    small, points = _foreground(_isotropic(scan, 2.0))
    starts = _promising_starts(template, small, points)
    found = _align_from(starts[:KEPT_STARTS], small, template)
    if _is_likely(found, template):
        return found
    other = _align_from(starts[KEPT_STARTS:], small, template)
    return other if _is_likely(other, template) else found


def _align_from(
    starts: list[sitk.Similarity3DTransform], small: sitk.Image, template: HeadTemplate
) -> HeadAlignment:
    near = template.near(25.0)

    def follow(start: sitk.Similarity3DTransform) -> tuple[sitk.Transform, float]:
        return _register_roughly(template.head, small, start, (4,), (4.0,), near)

    # The metric is the negative mutual information.
    reached = min(in_parallel(follow, starts), key=lambda pair: pair[1])[0]
    similarity = sitk.Similarity3DTransform(reached)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(similarity.GetCenter())
    affine.SetMatrix(similarity.GetMatrix())
    affine.SetTranslation(similarity.GetTranslation())
    near = template.near(20.0)
    affine = sitk.AffineTransform(
        _register_roughly(template.head, small, affine, (4, 2), (4.0, 2.0), near)[0]
    )
    moved = sitk.Resample(small, template.head, affine, sitk.sitkLinear)
    warp = _demons(moved, template)
    brain = sitk.Resample(template.brain, moved, warp, sitk.sitkLinear)
    inside = template.distance <= 10.0
    warped = array_from_image(sitk.Resample(template.head, moved, warp, sitk.sitkLinear))
    ncc = float(np.corrcoef(array_from_image(moved)[inside], warped[inside])[0, 1])
    return HeadAlignment(affine, warp, moved, brain, ncc)


def _is_likely(found: HeadAlignment, template: HeadTemplate) -> bool:
    matrix = np.array(found.affine.GetMatrix()).reshape(3, 3)
    stretches = np.linalg.svd(matrix, compute_uv=False)
    voxel_ml = np.prod(template.brain.GetSpacing()) / 1000.0
    volume_ml = float(array_from_image(template.brain).sum() * voxel_ml * abs(np.linalg.det(matrix)))
    likely_size = LIKELY_ML[0] <= volume_ml <= LIKELY_ML[1]
    return found.ncc >= LIKELY_NCC and likely_size and stretches[0] <= LIKELY_STRETCH * stretches[2]


def _isotropic(image: sitk.Image, spacing: float) -> sitk.Image:
    size = [max(1, round(n * s / spacing)) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    for axis, step in enumerate(image.GetSpacing()):
        sigma = 0.4 * max(0.0, spacing**2 - step**2) ** 0.5
        if sigma > 0.05:
            image = sitk.RecursiveGaussian(image, sigma=sigma, direction=axis)
    return sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkLinear,
        image.GetOrigin(), [spacing] * 3, image.GetDirection(), 0.0, sitk.sitkFloat32,
    )  # fmt: skip


def _foreground(image: sitk.Image) -> tuple[sitk.Image, np.ndarray]:
    """The image with its brightest voxels (fat) capped; (N, 3) points of the head above the neck, LPS mm."""
    components = sitk.ConnectedComponent(sitk.OtsuThreshold(image, 0, 1, 200))
    mask = array_from_image(sitk.RelabelComponent(components)) == 1
    if mask.sum() * np.prod(image.GetSpacing()) < 5e5:
        raise ValueError("no head found: less than half a litre is brighter than the background")
    ceiling = float(np.percentile(array_from_image(image)[mask], 97))
    linear = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    points = np.array(image.GetOrigin()) + 2.0 * np.argwhere(mask[::2, ::2, ::2]) @ linear.T
    points = points[points[:, 2] > np.percentile(points[:, 2], 99.9) - HEAD_HEIGHT]
    return sitk.Clamp(image, sitk.sitkFloat32, 0.0, ceiling), points


def _promising_starts(
    template: HeadTemplate, scan: sitk.Image, points: np.ndarray
) -> list[sitk.Similarity3DTransform]:
    """The turns about the head's middle of highest mutual information, best first."""
    centre, origin = points.mean(0), template.middle
    near = template.near(25.0)
    coarse, coarse_scan = template.coarse, _isotropic(scan, COARSE_SPACING)

    def start_at(angles: tuple[float, float, float]) -> sitk.Similarity3DTransform:
        pitch, yaw, roll = angles
        start = sitk.Similarity3DTransform()
        start.SetCenter(origin.tolist())
        start.SetTranslation((centre - origin).tolist())
        # Rotations about x, y, z of LPS: nodding, leaning to a shoulder, turning.
        start.SetMatrix(
            Rotation.from_euler("xyz", [pitch, roll, yaw], degrees=True).as_matrix().ravel().tolist()
        )
        return start

    def badness(start: sitk.Similarity3DTransform) -> float:
        method = mutual_information(near, 1.0)
        method.SetInitialTransform(start, inPlace=False)
        return float(method.MetricEvaluate(coarse, coarse_scan))

    starts = [start_at(angles) for angles in product(PITCHES, TURNS, TURNS)]
    order = np.argsort(in_parallel(badness, starts), kind="stable")
    return [starts[index] for index in order[:MORE_STARTS]]


def _demons(moved: sitk.Image, template: HeadTemplate) -> sitk.Transform:
    """Fast symmetric demons (Vercauteren et al. 2009, doi:10.1016/j.neuroimage.2008.10.040).

    Demons compare intensities, so the template first takes on the scan's: each of its intensities becomes
    the scan's mean where the template has it. That holds for any contrast of tissues.
    """
    shades = template.shades
    values = array_from_image(moved)
    values = values / np.percentile(values[shades.inside], 98)
    within = values[shades.inside]
    means = [within[shades.bins == b].mean() for b in shades.used]
    taken_on = np.interp(array_from_image(template.head), shades.centres, means)
    fixed, moving = (
        _isotropic(_like(image * shades.weight, moved), WARP_SPACING) for image in (values, taken_on)
    )
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(WARP_ITERATIONS)
    demons.SetSmoothDisplacementField(True)
    demons.SetStandardDeviations(WARP_SMOOTHING / WARP_SPACING)
    field = sitk.Resample(demons.Execute(fixed, moving), moved)
    return sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))


def _like(array: np.ndarray, reference: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.astype(np.float32).transpose(2, 1, 0)))
    image.CopyInformation(reference)
    return image
