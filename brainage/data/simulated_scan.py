"""One simulated T1-weighted scan of a brain, with the truth about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.datasets import load_mni152_template
from scipy import ndimage

from brainage.data.aging import (
    FLUID,
    RATES,
    REFERENCE_AGE,
    SULCAL,
    WORK_GRID,
    base_name,
    deformation,
    growth_map,
    sulci_of,
    template_anatomy,
    true_volumes,
    variation,
    widened_sulci,
)

# Voxel sizes along R, A, S (mm) and axis codes of the scans as stored, used in turn.
_SPACINGS = ((1.0, 1.0, 1.0), (1.0, 1.0, 1.3), (1.25, 1.25, 1.2), (1.5, 1.0, 1.0), (1.0, 1.2, 1.5))
_CODES = ("RAS", "LAS", "PSR", "LPS", "ASR", "RSA", "SPL")

# Spread (standard deviation) of a person's own log volumes about those of the age.
SPREAD = {"ventricle": 0.15, "sulci": 0.10, "tissue": 0.03, "side": 0.02}
WHITE_DARKENS = 0.0018  # of white matter's intensity a year
_CONTRAST = ((0.0, 0.25, 0.68, 0.95, 1.2), (0.03, 0.12, 0.62, 0.93, 1.1))  # template -> scan
_OUTLINE = 0.2  # of the template's brain, as in nilearn's mask
_TISSUE_OVER_FLUID = 0.45  # grey matter less fluid, of a scan


@dataclass(frozen=True)
class SimulatedScan:
    """One scan and what is true of it.

    Attributes:
        image: int16, in the orientation and voxel size it is stored with; 0 outside the brain.
        truth: one row a region: region, set_rate (log volume a year), set_change (log, by age),
            own_change (log, of the person), template_ml, true_ml (both in template space, before the
            person's overall size).
        mni_to_native: (4, 4) template world mm -> scan world mm, without the local deformation.
    """

    image: nib.Nifti1Image
    truth: pd.DataFrame
    mni_to_native: np.ndarray


def simulate_scan(
    age: float, sex: str, index: int, seed: int, rates: Mapping[str, float] = RATES
) -> SimulatedScan:
    """A T1-weighted brain of ``age`` years.

    Args:
        age: years.
        sex: M or F; male brains are some per cent larger.
        index: number of the person, which with ``seed`` decides all that is random.
        seed: of the cohort.
        rates: change of log volume a year by region name, as ``RATES``; with a side for that side
            alone, and under :func:`sulci_of` for the sulci of one region.
    """
    rng = np.random.default_rng([seed, index])
    anatomy = template_anatomy()
    own = _own_changes(rng, anatomy.names[1:])
    rate = {name: rates.get(name, rates.get(base_name(name), 0.0)) for name in own}
    by_age = {name: rate[name] * (age - REFERENCE_AGE) for name in own}
    change = {name: by_age[name] + own[name] for name in own}
    for name in anatomy.names[1:]:
        if sulci_of(name) in rates:
            change[sulci_of(name)] = rates[sulci_of(name)] * (age - REFERENCE_AGE) + own[SULCAL]
    sulci = widened_sulci(anatomy, change)
    shape_of_own = variation(rng, 14.0, 1.2) + variation(rng, 7.0, 0.4)
    back = deformation(growth_map(anatomy, change), shape_of_own)
    mni_to_native = _pose(rng, 1.0 + (0.02 if sex == "M" else -0.02))
    shape, affine = _stored_grid(rng, index, mni_to_native)
    fainter = WHITE_DARKENS * (age - REFERENCE_AGE) + 0.01 * rng.standard_normal()
    darker = _TISSUE_OVER_FLUID * (sulci - anatomy.sulci) + np.float32(fainter) * anatomy.white
    to_work = np.linalg.inv(WORK_GRID.affine) @ np.linalg.inv(mni_to_native) @ affine
    values = _render(to_work, shape, back, darker)
    image = nib.Nifti1Image(_scanned(rng, values), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"simulated by brainage; no person's scan"
    before = _template_volumes()
    after = true_volumes(anatomy, back, sulci)
    truth = pd.DataFrame(
        {
            "region": list(own),
            "set_rate": list(rate.values()),
            "set_change": [by_age[name] for name in own],
            "own_change": list(own.values()),
            "template_ml": [before[name] for name in own],
            "true_ml": [after[name] for name in own],
        }
    )
    return SimulatedScan(image, truth, mni_to_native)


def _own_changes(rng: np.random.Generator, names: tuple[str, ...]) -> dict[str, float]:
    """A person's own log volumes: mostly alike on both sides."""
    both: dict[str, float] = {}
    own = {}
    for name in names:
        kind = "ventricle" if base_name(name) in FLUID else "tissue"
        if base_name(name) not in both:
            both[base_name(name)] = SPREAD[kind] * float(rng.standard_normal())
        own[name] = both[base_name(name)] + SPREAD["side"] * float(rng.standard_normal())
    return {**own, SULCAL: SPREAD["sulci"] * float(rng.standard_normal())}


def _pose(rng: np.random.Generator, size: float) -> np.ndarray:
    """(4, 4) template world mm -> scan world mm: size, and how the head lay."""
    angles = np.deg2rad(rng.normal(0, 3.5, 3))
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [k for k in range(3) if k != axis]
        one = np.eye(3)
        one[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turn = turn @ one
    pose = np.eye(4)
    pose[:3, :3] = turn @ np.diag(size * (1 + rng.normal(0, 0.02, 3)))
    pose[:3, 3] = rng.normal(0, 6, 3)
    return pose


def _stored_grid(
    rng: np.random.Generator, index: int, mni_to_native: np.ndarray
) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of the stored scan: a box around the brain, in one of several axis orders."""
    spacing = np.array(_SPACINGS[index % len(_SPACINGS)])
    corners = np.array(np.meshgrid([-76, 76], [-112, 78], [-75, 86])).reshape(3, -1)
    box = mni_to_native[:3, :3] @ corners + mni_to_native[:3, 3:]
    low = box.min(axis=1) - rng.uniform(2, 8, 3)
    shape = np.ceil((box.max(axis=1) + rng.uniform(2, 8, 3) - low) / spacing).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"),
        nib.orientations.axcodes2ornt(_CODES[index % len(_CODES)]),
    )
    stored = affine @ nib.orientations.inv_ornt_aff(turn, shape)
    sizes = np.empty(3, int)
    sizes[turn[:, 0].astype(int)] = shape
    return tuple(int(n) for n in sizes), stored


@lru_cache(maxsize=1)
def _template_t1() -> tuple[np.ndarray, np.ndarray]:
    """T1 template, 1 mm, and its affine."""
    image = load_mni152_template(resolution=1)
    return image.get_fdata(dtype=np.float32), image.affine


@lru_cache(maxsize=1)
def _near_the_brain() -> np.ndarray:
    """Voxels of ``WORK_GRID`` that a deformed brain may reach."""
    return ndimage.binary_dilation(template_anatomy().labels > 0, iterations=4).astype(np.uint8)


@lru_cache(maxsize=1)
def _template_volumes() -> dict[str, float]:
    anatomy = template_anatomy()
    return true_volumes(anatomy, np.zeros((3, *anatomy.labels.shape), np.float32), anatomy.sulci)


def _render(to_work: np.ndarray, shape: tuple[int, ...], back: np.ndarray, darker: np.ndarray) -> np.ndarray:
    """Intensities in [0, 1.1] on the stored grid; 0 outside the brain.

    Args:
        to_work: (4, 4) voxel of the scan -> voxel of ``WORK_GRID``.
        shape: of the scan.
        back: the displacement of ``deformation``.
        darker: what the template's intensities lose, on ``WORK_GRID``.
    """
    t1, affine = _template_t1()
    near = ndimage.affine_transform(_near_the_brain(), to_work, output_shape=shape, order=0)
    voxels = np.stack(np.nonzero(near))
    work = (to_work[:3, :3] @ voxels + to_work[:3, 3:]).astype(np.float32)
    work = work + np.stack([ndimage.map_coordinates(part, work, order=1, mode="nearest") for part in back])
    to_t1 = (np.linalg.inv(affine) @ WORK_GRID.affine).astype(np.float32)
    values = ndimage.map_coordinates(t1, to_t1[:3, :3] @ work + to_t1[:3, 3:], order=1)
    inside = values > _OUTLINE
    values = np.interp(values, *_CONTRAST) - ndimage.map_coordinates(darker, work, order=1)
    out = np.zeros(shape, np.float32)
    out[tuple(voxels)] = np.where(inside, np.maximum(values, 0.03), 0)
    return out


def _scanned(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """A smooth bias field, noise of the magnitude image (Rician) and the scanner's own scale, int16."""
    axes = np.meshgrid(
        *(np.linspace(-1, 1, n, dtype=np.float32) for n in values.shape), indexing="ij", sparse=True
    )
    bias = np.zeros(values.shape, np.float32)
    for axis in axes:
        bias += 0.06 * float(rng.standard_normal()) * axis + 0.05 * float(rng.standard_normal()) * axis**2
    sigma = float(rng.uniform(0.015, 0.03))
    brain = values > 0
    clean = (values * np.exp(bias))[brain]
    noise = sigma * rng.standard_normal((2, clean.size), dtype=np.float32)
    out = np.zeros(values.shape, np.int16)
    out[brain] = np.maximum(np.rint(np.hypot(clean + noise[0], noise[1]) * rng.uniform(300, 1500)), 1)
    return out
