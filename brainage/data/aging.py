"""How a simulated brain differs from the template: regions grow and shrink by set amounts.

A region's change is set as a rate of its log volume a year. The rates become a map of growth e(x); the
displacement u = grad(phi) with div(u) = e, the smoothest one that grows each place by e, solves a Poisson
equation (by FFT). Large changes are built in steps, each on the anatomy that the last one left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import nibabel as nib
import numpy as np
from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template
from scipy import fft, ndimage

from brainage.anatomy.atlas import built_in
from brainage.anatomy.grid import MODEL_GRID, Grid

# The model grid with room around the brain; 108 and 120 have small prime factors, for the FFT.
_PAD = ((14, 14), (11, 13), (15, 13))
WORK_GRID = Grid((108, 120, 108), 2.0, (-107.0, -135.0, -102.0))

# The template's people were young, but the average of their scans shows as much fluid as a scan of this age.
REFERENCE_AGE = 50.0

# Change of log volume a year, set by us: half a per cent a year and more where aging shows most (Fjell and
# Walhovd 2010, doi:10.1515/revneuro.2010.21.3.187), and large enough that the young and the old differ as
# the averages of a healthy cohort do. Linear in age, which the real course is not; the brainstem stays.
RATES: Mapping[str, float] = {
    "frontal lobe": -0.0062,
    "parietal lobe": -0.0055,
    "temporal lobe": -0.0050,
    "occipital lobe": -0.0025,
    "cingulate cortex": -0.0040,
    "insula": -0.0045,
    "medial temporal": -0.0065,
    "basal ganglia": -0.0045,
    "thalamus": -0.0045,
    "lateral ventricle": 0.0250,
    "anterior white matter": -0.0020,
    "posterior white matter": -0.0015,
    "cerebellum": -0.0040,
    "third and fourth ventricle": 0.0120,
    "brainstem": 0.0,
    "sulcal fluid": 0.0240,
}
FLUID = frozenset({"lateral ventricle", "third and fourth ventricle"})
_RIM = 1.35  # ventricles are a few voxels wide and their rims grow less than set: measured, and made up for
SULCAL = "sulcal fluid"


@dataclass(frozen=True)
class Anatomy:
    """The template's regions and tissues on ``WORK_GRID``, each (108, 120, 108).

    Attributes:
        labels: built-in atlas; 0 outside the brain.
        grey, white, fluid: shares in [0, 1], summing to 1 inside the brain and 0 outside.
        names: region name (as in the atlas) by label, "" for 0.
    """

    labels: np.ndarray
    grey: np.ndarray
    white: np.ndarray
    fluid: np.ndarray
    names: tuple[str, ...]

    @cached_property
    def sulci(self) -> np.ndarray:
        """Share of fluid outside the ventricles."""
        ventricles = [i for i, name in enumerate(self.names) if base_name(name) in FLUID]
        return np.where(np.isin(self.labels, ventricles), 0, self.fluid).astype(np.float32)


def sulci_of(region: str) -> str:
    """What the fluid in the sulci of one region is called among rates and changes."""
    return f"{SULCAL} of {region}"


def base_name(name: str) -> str:
    """``"thalamus L"`` -> ``"thalamus"``."""
    return name[:-2] if name.endswith((" L", " R")) else name


@lru_cache(maxsize=1)
def template_anatomy() -> Anatomy:
    """The ICBM 2009a template, as nilearn carries it, with the built-in atlas."""
    atlas = built_in()
    labels = np.pad(atlas.labels, _PAD)
    grey, white = (
        _at_2_mm(load(resolution=1)) for load in (load_mni152_gm_template, load_mni152_wm_template)
    )
    inside = labels > 0
    grey, white = grey * inside, white * inside
    return Anatomy(
        labels=labels,
        grey=grey,
        white=white,
        fluid=(np.clip(1 - grey - white, 0, 1) * inside).astype(np.float32),
        names=("", *atlas.regions.sort_values("index")["name"]),
    )


def _at_2_mm(image: nib.Nifti1Image) -> np.ndarray:
    blurred = image.get_fdata(dtype=np.float32)
    for axis in range(3):
        blurred = ndimage.convolve1d(blurred, [0.25, 0.5, 0.25], axis=axis)
    start = np.rint(np.array(MODEL_GRID.origin) - image.affine[:3, 3]).astype(int)
    cut = tuple(slice(s, s + 2 * n, 2) for s, n in zip(start, MODEL_GRID.shape, strict=True))
    return np.pad(blurred[cut], _PAD)


def growth_map(anatomy: Anatomy, change: Mapping[str, float]) -> np.ndarray:
    """Change of log volume wanted at each voxel, (108, 120, 108) float32, of mean zero.

    Args:
        anatomy: the template.
        change: by region name of the atlas, and for ``"sulcal fluid"``; for the sulci of one region also by
            :func:`sulci_of`.
    """
    grown_tissue, grown_sulci = _grown(anatomy, change)
    growth = np.log(grown_tissue + grown_sulci)
    outside = anatomy.labels == 0
    growth[outside] = 0
    # What the brain gains or loses, the space around it gives or takes.
    growth[outside] = -growth.sum(dtype=np.float64) / outside.sum()
    return growth


def widened_sulci(anatomy: Anatomy, change: Mapping[str, float]) -> np.ndarray:
    """Share of sulcal fluid in each voxel of the template once tissue shrank and fluid grew beside it.

    At 2 mm a sulcus shares its voxels with the cortex around it: the deformation can only grow the voxel as
    a whole, so what changes inside it is the mixture.
    """
    grown_tissue, grown_sulci = _grown(anatomy, change)
    return grown_sulci / (grown_tissue + grown_sulci)


def _grown(anatomy: Anatomy, change: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """What becomes of the tissue and of the sulcal fluid in one unit of volume."""
    wanted = [change.get(name, 0.0) * (_RIM if base_name(name) in FLUID else 1) for name in anatomy.names]
    by_label = np.exp(np.array(wanted, np.float32))
    everywhere = change.get(SULCAL, 0.0)
    widened = [change.get(sulci_of(name), everywhere) for name in anatomy.names]
    by_fluid = np.exp(np.array(widened, np.float32))
    return by_label[anatomy.labels] * (1 - anatomy.sulci), by_fluid[anatomy.labels] * anatomy.sulci


def deformation(growth: np.ndarray, own: np.ndarray, steps: int = 2) -> np.ndarray:
    """Displacement (3, 108, 120, 108), voxels, that takes a place of the new brain to the template's.

    Args:
        growth: change of log volume at each voxel of the template.
        own: (3, 108, 120, 108) a person's own shape, voxels, from ``variation``.
        steps: the more, the closer large changes come to what was set.
    """
    back = -own
    here = np.indices(growth.shape, dtype=np.float32)
    for _ in range(steps):
        local = ndimage.map_coordinates(growth, here + back, order=1, mode="nearest")
        step = _flow(local / steps)
        moved = here - step
        back = (
            np.stack([ndimage.map_coordinates(part, moved, order=1, mode="nearest") for part in back]) - step
        )
    return back


def _flow(growth: np.ndarray) -> np.ndarray:
    """The gradient field whose divergence is ``growth`` (voxels; periodic box)."""
    spectrum = fft.rfftn(growth)
    kx, ky, kz = _waves(growth.shape)
    squared = kx**2 + ky**2 + kz**2
    squared[0, 0, 0] = 1
    potential = -1j * spectrum / squared
    potential[0, 0, 0] = 0
    return np.stack([fft.irfftn(k * potential, growth.shape) for k in (kx, ky, kz)]).astype(np.float32)


def _waves(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Angular frequencies of ``rfftn``'s three axes, ready to broadcast."""
    waves = [2 * np.pi * fft.fftfreq(n).astype(np.float32) for n in shape[:2]]
    waves.append(2 * np.pi * fft.rfftfreq(shape[2]).astype(np.float32))
    return list(np.meshgrid(*waves, indexing="ij", sparse=True))


def variation(rng: np.random.Generator, sigma_mm: float, amplitude_mm: float) -> np.ndarray:
    """A random smooth displacement that changes no volume (of zero divergence), a person's own shape.

    Returns:
        (3, 108, 120, 108), voxels, float32.
    """
    shape = tuple(n // 2 for n in WORK_GRID.shape)
    kx, ky, kz = _waves(shape)
    squared = kx**2 + ky**2 + kz**2
    blur = np.exp(-squared * (sigma_mm / (2 * WORK_GRID.spacing)) ** 2 / 2)
    squared[0, 0, 0] = 1
    spectra = [fft.rfftn(rng.standard_normal(shape, dtype=np.float32)) * blur for _ in range(3)]
    along = sum(k * part for k, part in zip((kx, ky, kz), spectra, strict=True)) / squared
    parts = [fft.irfftn(part - k * along, shape) for k, part in zip((kx, ky, kz), spectra, strict=True)]
    scale = amplitude_mm / WORK_GRID.spacing / np.std(parts)
    return np.stack([ndimage.zoom(part * scale, 2, order=1) for part in parts]).astype(np.float32)


def true_volumes(anatomy: Anatomy, back: np.ndarray, sulci: np.ndarray) -> dict[str, float]:
    """Volume (ml) of each region, without the fluid in its sulci, and of the sulci, in the new brain.

    Args:
        anatomy: the template.
        back: the displacement of ``deformation``.
        sulci: the shares of ``widened_sulci``.
    """
    where = np.indices(back.shape[1:], dtype=np.float32) + back
    labels = ndimage.map_coordinates(anatomy.labels, where, order=0)
    shares = ndimage.map_coordinates(sulci, where, order=1)
    tissue = np.bincount(labels.ravel(), weights=(1 - shares).ravel(), minlength=len(anatomy.names))
    voxel_ml = WORK_GRID.spacing**3 / 1000
    volumes = {name: float(tissue[i] * voxel_ml) for i, name in enumerate(anatomy.names) if name}
    return {**volumes, SULCAL: float(shares.sum(dtype=np.float64) * voxel_ml)}
