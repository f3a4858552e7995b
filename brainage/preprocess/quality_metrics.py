"""Image-quality metrics by the names and definitions of MRIQC, as plain formulas.

MRIQC: Esteban et al. 2017, doi:10.1371/journal.pone.0184661. What is fed to them here, and where that differs
from MRIQC, is said in ``quality_image``. Intensities are in any one unit; all results are without unit
unless stated.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage, stats

# Standard deviation of Gaussian noise over that of its magnitude in air, which is Rayleigh distributed:
# sqrt(2 / (4 - pi)) (Dietrich et al. 2007, doi:10.1002/jmri.20969, eq. A.12).
RAYLEIGH = math.sqrt(2 / (4 - math.pi))
# Median absolute deviation -> standard deviation of a normal distribution.
MAD = 1.4826
# Deviations of the air above which a voxel counts as artefact, and the least distance of such a voxel from
# the head as a share of the largest one (Mortamet et al. 2009, doi:10.1002/mrm.21992, as MRIQC sets them).
ARTEFACT_DEVIATIONS, ARTEFACT_DISTANCE = 10.0, 0.1
# Share of the brightest voxels that means of ghosts leave out: holders and ears are brighter.
GHOST_TRIM = 0.05


class Distribution(NamedTuple):
    """Intensities of one tissue: median, standard deviation, robust deviation (1.4826 MAD), voxels."""

    median: float
    std: float
    mad: float
    voxels: int


def distribution(values: np.ndarray) -> Distribution:
    """Of at least two values."""
    median = float(np.median(values))
    deviation = MAD * float(np.median(np.abs(values - median)))
    return Distribution(median, float(values.std()), deviation, int(values.size))


def snr(tissue: Distribution) -> float:
    """Signal-to-noise ratio within a tissue: median / (standard deviation sqrt(n / (n - 1))); high: good."""
    spread = tissue.std * math.sqrt(tissue.voxels / (tissue.voxels - 1))
    return tissue.median / spread if spread > 0 else math.inf


def snr_dietrich(tissue: Distribution, air: Distribution) -> float:
    """Signal over the noise in air: median / (1.53 robust deviation of the air); high is good.

    Dietrich et al. 2007, doi:10.1002/jmri.20969.
    """
    return tissue.median / (RAYLEIGH * air.mad)


def cnr(white: Distribution, grey: Distribution, air: Distribution) -> float:
    """Contrast-to-noise ratio: |white - grey| / sqrt(their variances + that of the air); high is good.

    Magnotta and Friedman 2006, doi:10.1007/s10278-006-0264-x.
    """
    return abs(white.median - grey.median) / math.sqrt(air.std**2 + white.std**2 + grey.std**2)


def cjv(white: Distribution, grey: Distribution) -> float:
    """Coefficient of joint variation: (their robust deviations) / |white - grey|; low is good.

    Rises with motion, noise and an uncorrected bias. Ganzetti et al. 2016, doi:10.3389/fninf.2016.00010.
    """
    return (white.mad + grey.mad) / abs(white.median - grey.median)


def efc(image: np.ndarray) -> float:
    """Entropy focus criterion, 0 (all energy in one voxel) to 1 (all voxels alike); low is good.

    The entropy of x / sqrt(sum x^2) over its maximum; ghosts and blur raise it. Exact zeros, which scanners
    and defacing put where nothing was measured, are left out. Atkinson et al. 1997, doi:10.1109/42.650886.
    """
    values = image[image > 0].astype(np.float64)
    if values.size < 2:
        return 0.0
    shares = values / math.sqrt(float((values**2).sum()))
    most = math.sqrt(values.size) * math.log(math.sqrt(values.size))
    return float(-(shares * np.log(shares)).sum()) / most


def fber(head: np.ndarray, air: np.ndarray) -> float:
    """Foreground-background energy ratio: median squared intensity of the head over that of the air.

    High is good. Shehzad et al. 2015, doi:10.3389/conf.fnins.2015.91.00047.
    """
    return float(np.median(head) ** 2 / max(float(np.median(air)) ** 2, 1e-12))


def wm2max(image: np.ndarray, white: Distribution) -> float:
    """White matter's median over the 99.95th percentile of the image; 0.6 to 0.8 is usual of heads."""
    return white.median / float(np.percentile(image, 99.95))


def artefacts(image: np.ndarray, air: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Voxels of the air that are too bright for noise, (X, Y, Z) bool.

    Args:
        image: (X, Y, Z).
        air: where nothing should be seen, (X, Y, Z) bool.
        distance: from the head, in any unit.
    """
    values = image[air]
    found = np.zeros(air.shape, bool)
    if not values.size:
        return found
    noise = distribution(values)
    found[air] = values > noise.median + ARTEFACT_DEVIATIONS * max(noise.mad, 1e-12)
    found &= distance > ARTEFACT_DISTANCE * float(distance[air].max())
    # Single bright voxels are noise.
    return ndimage.binary_opening(found)


def qi_1(air: np.ndarray, found: np.ndarray) -> float:
    """Mortamet's first quality index: share of artefact voxels in the air above the face; low is good."""
    return float(found.sum() / max(int(air.sum()), 1))


def gsr(ghost: np.ndarray, background: np.ndarray, signal: float) -> float:
    """Ghost-to-signal ratio: (mean of the ghost - mean of the background) / signal; about 0 is good.

    MRIQC has it of functional scans, where a ghost lies half a field of view away (Giannelli et al. 2010,
    doi:10.1120/jacmp.v11i4.3237); here the ghost is wherever it can be, see ``ghost_regions``. Means are of
    all but the brightest voxels (``GHOST_TRIM``).

    Args:
        ghost, background: intensities of air; at least one each.
        signal: median of the brain.
    """
    with_ghost, without = (float(stats.trim1(part, GHOST_TRIM).mean()) for part in (ghost, background))
    return (with_ghost - without) / signal


def inu(field: np.ndarray) -> tuple[float, float]:
    """Intensity non-uniformity: range (95th less 5th percentile) and median of the bias field in the brain.

    Args:
        field: factors that the scan was divided by (N4; Tustison et al. 2010,
            doi:10.1109/TMI.2010.2046908), scaled to mean 1.
    """
    low, middle, high = np.percentile(field, [5, 50, 95])
    return float(high - low), float(middle)


def fwhm(image: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    """Smoothness along each axis, voxels: full width at half maximum of the Gaussian that would explain it.

    From the variance v of the intensities and d of the differences of neighbours:
    sqrt(-2 ln 2 / ln(1 - d / (2 v))). Forman et al. 1995, doi:10.1002/mrm.1910330508; low is sharp.

    Args:
        image, mask: (X, Y, Z); pairs of neighbours that both lie in the mask count.
    """
    variance = float(image[mask].var())
    widths = []
    for axis in range(3):
        here = np.moveaxis(image, axis, 0)
        inside = np.moveaxis(mask, axis, 0)
        steps = (here[1:] - here[:-1])[inside[1:] & inside[:-1]]
        # Neighbours that have nothing in common have no width.
        unlike = float(steps.var()) / (2 * variance) if variance > 0 and steps.size else 1.0
        widths.append(math.sqrt(-2 * math.log(2) / math.log1p(-unlike)) if 0 < unlike < 1 else 0.0)
    return widths[0], widths[1], widths[2]
