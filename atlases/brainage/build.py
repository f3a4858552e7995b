"""Build the parcellation that brainage ships: ``python atlases/brainage/build.py [FOLDER]``.

Input: the T1, grey- and white-matter maps of the symmetric ICBM 2009a template that nilearn carries
(Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033) and the landmarks below. Tissue comes from the
maps, borders from the landmarks; a voxel takes the first region of ``REGIONS`` whose rule it meets.
Landmarks are millimetres of that template: ``a`` = distance from the midplane, ``y`` forwards, ``z`` up.
They follow the conventional lobar borders (Talairach and Tournoux 1988: central sulcus, Sylvian fissure,
parieto-occipital sulcus and its line to the preoccipital notch), read off the template and placed by the
160 published centres of Dosenbach et al. 2010 (doi:10.1126/science.1194144), which a test holds against
the result. Coarse by design (16 mm patches are assigned to regions), so not for volumetry.

Every step is element-wise or an integer operation, so the result is the same on every machine.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

from brainage.anatomy.grid import MODEL_GRID, SPACE

STEM = f"tpl-{SPACE}_res-2_atlas-brainage_dseg"

# name, group; each becomes a left and a right region. The order is that of the indices.
LATERAL = (
    ("frontal lobe", "frontal"),
    ("parietal lobe", "parietal"),
    ("temporal lobe", "temporal"),
    ("occipital lobe", "occipital"),
    ("cingulate cortex", "limbic"),
    ("insula", "limbic"),
    ("medial temporal", "limbic"),
    ("basal ganglia", "subcortical"),
    ("thalamus", "subcortical"),
    ("lateral ventricle", "ventricles"),
    ("anterior white matter", "white_matter"),
    ("posterior white matter", "white_matter"),
    ("cerebellum", "cerebellum_brainstem"),
)
MIDLINE = (("third and fourth ventricle", "ventricles"), ("brainstem", "cerebellum_brainstem"))

Line = tuple[tuple[float, float], ...]

# Central sulcus seen from above: (a, y), from the paracentral notch to the Sylvian end.
CENTRAL_SULCUS: Line = ((0, -37), (20, -31), (38, -23), (50, -14), (60, -8), (70, -5))
# Sylvian fissure seen from the side, and on along the upper border of the temporal lobe: (y, z).
SYLVIAN: Line = ((-74, 10), (-45, 19), (-20, 11), (0, 0), (10, -6), (20, -14), (24, -40))
# Parieto-occipital sulcus on the medial wall, and the border to the preoccipital notch: (z, y).
PARIETO_OCCIPITAL_MEDIAL: Line = ((-16, -47), (4, -52), (10, -60), (40, -79), (50, -84))
PARIETO_OCCIPITAL_LATERAL: Line = ((-20, -69), (10, -72), (45, -86))
# Upper side of the corpus callosum, round the genu to the subgenual cortex and round the splenium: (y, z).
CALLOSUM: Line = ((14, -8), (26, -4), (33, 6), (28, 17), (14, 25), (-8, 29), (-28, 27), (-42, 16), (-44, 6))
# Its lower side, over the ventricles: (y, z).
UNDER_CALLOSUM: Line = ((28, 2), (24, 13), (14, 19), (-8, 24), (-28, 22), (-38, 12), (-44, 8))
# Roof of the cerebellum (tentorium): (a, z), at the vermis and at its rear.
TENTORIUM: Line = ((0, -2), (8, -6), (20, -15), (34, -24), (48, -29), (75, -33))
# Border between brainstem and cerebellum: (z, y).
BRAINSTEM_BACK: Line = ((-72, -54), (-60, -50), (-46, -44), (-36, -40), (-20, -36), (-8, -36))


@dataclass(frozen=True)
class Template:
    """Maps of the template on the model grid, each (80, 96, 80): intensity and tissue shares in [0, 1]."""

    t1: np.ndarray
    grey: np.ndarray
    white: np.ndarray
    a: np.ndarray
    y: np.ndarray
    z: np.ndarray
    right: np.ndarray


def load_template() -> Template:
    """The template's maps, 1 mm, averaged over the model grid's voxels."""
    loaders = (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    axes = (
        start + MODEL_GRID.spacing * np.arange(size)
        for start, size in zip(MODEL_GRID.origin, MODEL_GRID.shape, strict=True)
    )
    x, y, z = np.meshgrid(*axes, indexing="ij")
    t1, grey, white = (_reduced(load) for load in loaders)
    return Template(t1, grey, white, a=np.abs(x), y=y, z=z, right=x > 0)


def _reduced(load: Callable[..., nib.Nifti1Image]) -> np.ndarray:
    image = load(resolution=1)
    # The maps are stored in eight bits. Whole numbers keep the sums, and so both sides, exact.
    data = np.rint(image.get_fdata() * 255).astype(np.int64)
    for axis, (start, size) in enumerate(zip(MODEL_GRID.origin, MODEL_GRID.shape, strict=True)):
        centre = round(start - image.affine[axis, 3]) + 2 * np.arange(size)
        # A 2 mm voxel holds one 1 mm voxel whole and half of its neighbours.
        data = data.take(centre - 1, axis) + 2 * data.take(centre, axis) + data.take(centre + 1, axis)
    return data / (64 * 255)


def at(line: Line, value: np.ndarray) -> np.ndarray:
    """Second coordinate of ``line`` where its first one is ``value``; constant beyond its ends."""
    points = np.array(sorted(line), dtype=float)
    return np.interp(value, points[:, 0], points[:, 1])


def near(line: Line, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance (mm) of the points (u, v) from ``line``, a curve in that plane."""
    best = np.full(u.shape, np.inf)
    for (u0, v0), (u1, v1) in pairwise(line):
        du, dv = u1 - u0, v1 - v0
        along = np.clip(((u - u0) * du + (v - v0) * dv) / (du * du + dv * dv), 0, 1)
        best = np.minimum(best, (u - u0 - along * du) ** 2 + (v - v0 - along * dv) ** 2)
    return np.sqrt(best)


def inside(t: Template, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """Whether a voxel lies in the ellipsoid (a, y, z) of these half axes, mm."""
    parts = zip((t.a, t.y, t.z), centre, radii, strict=True)
    return np.sum([((value - middle) / radius) ** 2 for value, middle, radius in parts], axis=0) <= 1


def rules(t: Template) -> dict[str, np.ndarray]:
    """Masks by region name, both hemispheres together, in order of precedence."""
    a, y, z = t.a, t.y, t.z
    fluid = (1 - t.grey - t.white > 0.45) & (t.t1 < 0.6)
    white = t.white > 0.6
    hindbrain = (z < at(TENTORIUM, a) - np.maximum(0, -76 - y) * 0.3) & (y < -34)
    stem = (a < 20) & (y > at(BRAINSTEM_BACK, z)) & (y < -2) & (z < -4)
    stem &= (z < -24) | (a < np.where(z < -12, 17, 14))
    stem &= (y < -8 - (z + 4) * 0.2) | (z > -20)
    fourth = (
        fluid
        & (a < 12)
        & (y < -36)
        & (y > -56)
        & (z < -16)
        & (z > -44)
        & (near(((-40, -20), (-46, -42)), y, z) < 9)
    )
    third = fluid & (a < 4) & (y < 5) & (y > -32) & (z > -16) & (z < 14)
    deep = (a < 26) & (y > -44) & (y < 28) & (z > -6) & (z < at(UNDER_CALLOSUM, y)) & (t.white < 0.6)
    horn = (a > 12) & (a < 34) & (y < -30) & (y > -68) & (z > -4) & (z < 26 - (a - 12) * 0.5)
    lateral = (fluid & horn) | (deep & (t.t1 < 0.6))
    basal = inside(t, (24, 0, 0), (11, 20, 14)) | (inside(t, (14, 8, 10), (9, 21, 18)) & (z > -13))
    basal |= inside(t, (11, 12, -6), (7, 8, 7))  # accumbens
    basal &= ((t.white < 0.65) | inside(t, (20, -4, -1), (7, 10, 7))) & (t.t1 > 0.6)
    thalamus = inside(t, (11, -18, 8), (13, 17, 12)) & (t.t1 > 0.6)
    insula = ~white & inside(t, (36, 0, 1), (9, 28, 19))
    hippocampal = (y > -43) & (y < 4) & (a > 11) & (a < np.where(z < -22, 32, 37))
    hippocampal &= (z < at(((-42, 4), (-30, -2), (-20, -8), (0, -12)), y)) & (
        z > at(((-42, -14), (-20, -30), (-5, -42)), y)
    )
    cingulate = ~white & (a < 13) & (near(CALLOSUM, y, z) < 14)
    behind = np.where(a < 24, at(PARIETO_OCCIPITAL_MEDIAL, z), at(PARIETO_OCCIPITAL_LATERAL, z))
    temporal = (z < at(SYLVIAN, y)) & (y < 24) & ((a > 24) | (y < 4))
    temporal &= (a > 30) | (z < -24) | ((y < -2) & ((a > 26) | (z < -8)))
    trigone = (a > 8) & (a < 30) & (y < -24) & (y > -50) & (z > -8) & (z < 20)
    cortex = t.t1 > 0
    return {
        "third and fourth ventricle": third | fourth,
        "brainstem": cortex & stem,
        "cerebellum": cortex & hindbrain,
        "lateral ventricle": lateral,
        "thalamus": thalamus,
        "basal ganglia": basal,
        "medial temporal": cortex & hippocampal & ~white,
        "insula": insula,
        "thalamus, rest": deep & (y < -6),
        "basal ganglia, rest": deep,
        "cingulate cortex": cortex & cingulate,
        "anterior white matter": white & (y > -14),
        "posterior white matter": white | trigone,
        "occipital lobe": cortex & (y < behind),
        "temporal lobe": cortex & temporal,
        "parietal lobe": cortex & (y < at(CENTRAL_SULCUS, a)),
        "frontal lobe": cortex,
    }


def parcellate(t: Template) -> np.ndarray:
    """Labels (80, 96, 80) uint8: 0 outside the brain, else the index in the table."""
    names = {name: index for index, name, _, _ in table()}
    labels = np.zeros(MODEL_GRID.shape, np.uint8)
    for rule, mask in rules(t).items():
        name = rule.removesuffix(", rest")
        free = mask & (labels == 0)
        if name in names:
            labels[free] = names[name]
        else:
            labels[free & ~t.right] = names[f"{name} L"]
            labels[free & t.right] = names[f"{name} R"]
    return labels


def table() -> list[tuple[int, str, str, str]]:
    """Rows (index, name, hemisphere, group)."""
    rows = [(f"{name} {side}", side, group) for name, group in LATERAL for side in "LR"]
    rows += [(name, "bilateral", group) for name, group in MIDLINE]
    return [(index, *row) for index, row in enumerate(rows, start=1)]


def build(folder: Path) -> None:
    """Write the volume and its table into ``folder``."""
    image = nib.Nifti1Image(parcellate(load_template()), MODEL_GRID.affine)
    image.set_sform(MODEL_GRID.affine, code="mni")
    image.set_qform(MODEL_GRID.affine, code="mni")
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label")
    image.header["descrip"] = b"brainage parcellation, coarse; not for volumetry"
    folder.mkdir(parents=True, exist_ok=True)
    # A gzip member without a name or a time, so that the bytes depend on the content alone.
    (folder / f"{STEM}.nii.gz").write_bytes(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0))
    lines = ["index\tname\themisphere\tgroup", *("\t".join(map(str, row)) for row in table())]
    (folder / f"{STEM}.tsv").write_bytes(("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
