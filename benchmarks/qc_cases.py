"""The spoiled scans of ``benchmarks/qc.py``: what is done to a good one, and what should come of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import fft, ndimage

Scan = tuple[np.ndarray, np.ndarray]  # intensities (X, Y, Z), axes in the order of RAS; affine
# Intensities, affine, random numbers, and where the brain is (X, Y, Z) bool.
Case = Callable[[np.ndarray, np.ndarray, np.random.Generator, np.ndarray], Scan]


def same(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
    return a, affine


def stored_flipped(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
    """The first axis stored backwards, and the header says so."""
    back = np.diag([-1.0, 1, 1, 1])
    back[0, 3] = a.shape[0] - 1
    return a[::-1], affine @ back


def mirrored(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
    """The hemispheres change places, and nothing says so."""
    return a[::-1], affine


def cut(axis: int, end: int, mm: float) -> Case:
    """The brain's outermost ``mm`` at one end of an axis are not in the field of view."""

    def change(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
        first, last = _extent(brain, axis)
        layers = round(mm / float(np.linalg.norm(affine[:3, axis])))
        start, stop = (first + layers, a.shape[axis]) if end < 0 else (0, last - layers)
        moved = affine.copy()
        moved[:3, 3] += affine[:3, axis] * start
        return np.take(a, range(start, stop), axis), moved

    return change


def erased(mm: float) -> Case:
    """The upper part of the brain is zero, in a field of view of the usual size."""

    def change(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
        _, last = _extent(brain, 2)
        out = a.copy()
        out[:, :, last - round(mm / float(np.linalg.norm(affine[:3, 2]))) :] = 0
        return out, affine

    return change


def t2(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
    """Contrast of the soft tissues turned round: fluid bright, white matter dark; air and bone stay dark."""
    top = np.percentile(a[a > 0.1 * np.percentile(a, 99)], 97)
    body = ndimage.gaussian_filter((a > 0.12 * top).astype(np.float32), 1) > 0.5
    if (a == 0).mean() > 0.3:
        body = ndimage.binary_closing(a > 0, iterations=2)
    return np.where(body, np.maximum(1.1 * top - a, 0.02 * top), a).astype(np.float32), affine


def larger(factor: float) -> Case:
    """Voxels that the header makes larger or smaller: a head of another size."""
    return lambda a, affine, rng, brain: (a, affine @ np.diag([factor, factor, factor, 1.0]))


def noisy(share: float) -> Case:
    """Rician noise with a deviation of this share of the bright tissue; none where a scan is stripped."""

    def change(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
        sigma = share * _bright(a)
        noise = rng.normal(0, sigma, (2, *a.shape)).astype(np.float32)
        return np.where(_kept(a), np.hypot(a + noise[0], noise[1]), 0).astype(np.float32), affine

    return change


def uneven(strength: float) -> Case:
    """A smooth field from exp(-strength) to exp(strength)."""

    def change(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
        x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in a.shape), indexing="ij", sparse=True)
        field = np.exp(strength * np.clip(0.5 * x + 0.7 * y * y - 0.6 * z, -1, 1))
        return (a * field).astype(np.float32), affine

    return change


def moved(degrees: float, mm: float, poses: int = 8, along: int = 1) -> Case:
    """The head takes several poses while k-space is filled along one axis: ghosts and blur."""

    def change(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        lines = np.moveaxis(fft.fft(a, axis=along), along, 0)
        for block in np.array_split(np.arange(a.shape[along]), poses)[1:]:
            angles = np.deg2rad(rng.normal(0, degrees, 3))
            turn = _rotation(angles)
            linear = np.diag(1 / spacing) @ turn @ np.diag(spacing)
            middle = (np.array(a.shape) - 1) / 2
            offset = middle - linear @ middle + rng.normal(0, mm, 3) / spacing
            there = fft.fft(ndimage.affine_transform(a, linear, offset, order=1), axis=along)
            lines[block] = np.moveaxis(there, along, 0)[block]
        image = np.moveaxis(np.abs(fft.ifft(lines, axis=0)).astype(np.float32), 0, along)
        return np.where(_kept(a), image, 0), affine

    return change


def ghosted(share: float, along: int = 1) -> Case:
    """Every second line of k-space is weaker by this share: a ghost of half of it, half a field away."""

    def change(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
        lines = np.moveaxis(fft.fft(a, axis=along), along, 0)
        lines[1::2] *= 1 - share
        image = np.moveaxis(np.abs(fft.ifft(lines, axis=0)).astype(np.float32), 0, along)
        return np.where(_kept(a), image, 0), affine

    return change


def blurred(mm: float) -> Case:
    """Smoothed by a Gaussian of this full width at half maximum."""
    return lambda a, affine, rng, brain: (
        ndimage.gaussian_filter(a, mm / 2.355 / np.linalg.norm(affine[:3, :3], axis=0)), affine,
    )  # fmt: skip


def phantom(kind: str, air: float) -> Case:
    """A bottle of water of a head's size with a faint gradient and noise; ``air``: share of it outside."""

    def make(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
        x, y, z = np.meshgrid(*(np.arange(-110, 110, 2.0) for _ in range(3)), indexing="ij")
        inside = x**2 + y**2 + (z**2 if kind == "sphere" else 0 * z) < 75**2
        inside &= np.abs(z) < 85
        clean = inside * (800 + 0.8 * y)
        noise = rng.normal(0, 12, (2, *inside.shape)) * np.where(inside, 1, air)
        return np.hypot(clean + noise[0], noise[1]).astype(np.float32), _plain(inside.shape)

    return make


def noise_alone(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
    shape = (110, 110, 110)
    return np.hypot(*rng.normal(0, 50, (2, *shape))).astype(np.float32), _plain(shape)


def blank(a: np.ndarray, affine: np.ndarray, rng: np.random.Generator, brain: np.ndarray) -> Scan:
    return np.zeros((110, 110, 110), np.float32), _plain((110, 110, 110))


# Name, what is done, and what should come of it: the worst status that would be a false alarm, or the
# mildest that catches it.
CASES: dict[str, tuple[Case, str]] = {
    "untouched": (same, "ok"),
    "stored left to right, header correct": (stored_flipped, "ok"),
    "mirrored, header unaware": (mirrored, "warning"),
    "top 15 mm outside the field of view": (cut(2, 1, 15), "warning"),
    "top 40 mm outside the field of view": (cut(2, 1, 40), "warning"),
    "lowest 40 mm of the brain outside": (cut(2, -1, 40), "warning"),
    "front 40 mm outside": (cut(1, 1, 40), "warning"),
    "top 40 mm erased": (erased(40), "warning"),
    "contrast of a T2": (t2, "failed"),
    "brain of a small child (0.8 of each length)": (larger(0.8), "report"),
    "brain of half the length": (larger(0.5), "warning"),
    "motion, slight": (moved(0.5, 0.5), "report"),
    "motion, heavy": (moved(4, 4), "warning"),
    "ghost of a tenth": (ghosted(0.2), "warning"),
    "blur of 6 mm": (blurred(6), "report"),
    "noise, 5 %": (noisy(0.05), "report"),
    "noise, 20 %": (noisy(0.2), "warning"),
    "uneven field, strong": (uneven(1.0), "report"),
}
ALONE: dict[str, tuple[Case, str]] = {
    "phantom: sphere, noise in the air": (phantom("sphere", 1.0), "failed"),
    "phantom: sphere, air erased": (phantom("sphere", 0.0), "failed"),
    "phantom: cylinder, noise in the air": (phantom("cylinder", 1.0), "failed"),
    "phantom: cylinder, air erased": (phantom("cylinder", 0.0), "failed"),
    "noise alone": (noise_alone, "failed"),
    "blank": (blank, "failed"),
}


def _extent(brain: np.ndarray, axis: int) -> tuple[int, int]:
    """First and last layer of the brain along an axis."""
    where = np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis})))
    return int(where[0]), int(where[-1])


def _bright(a: np.ndarray) -> float:
    return float(np.percentile(a[a > 0.1 * np.percentile(a, 99)], 80))


def _kept(a: np.ndarray) -> np.ndarray:
    return a > 0 if (a == 0).mean() > 0.3 else np.ones(a.shape, bool)


def _rotation(angles: np.ndarray) -> np.ndarray:
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [k for k in range(3) if k != axis]
        one = np.eye(3)
        one[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turn = turn @ one
    return turn


def _plain(shape: tuple[int, ...]) -> np.ndarray:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -np.array(shape)
    return affine
