"""Does a brain look like its own mirror image? A guess, from how left and right hemispheres usually differ.

A scan whose data are flipped, but whose header is consistent, is a possible brain: no header and no symmetric
template can tell. Human brains are not symmetric, though: in most, the right frontal and the left occipital
lobe reach farther (Toga and Thompson 2003, doi:10.1038/nrn1009). The shipped map weighs these differences.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any

import nibabel as nib
import numpy as np
from monai.transforms import Transform

from brainage.anatomy.grid import MODEL_GRID
from brainage.resources import resource

# Written by atlases/asymmetry/build.py.
MAP_FILE = "atlases/asymmetry/tpl-MNI152NLin2009aSym_res-8_desc-leftright_weights.nii.gz"
# Edge of the blocks of the model grid that are weighed, voxels.
BLOCK = 4


class MeasureLeftRightd(Transform):
    """Adds the QC figure ``left_right`` from the normalised ``volume``.

    It is +1 for the average adult of the cohort that the map was made from and, the map being exactly
    antisymmetric, of opposite sign for the mirror image. Single brains scatter about as widely as the two
    averages are apart, so it is a hint for one scan and evidence for a cohort (docs/quality_control.md).
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        volume = out["volume"][0].cpu().numpy()
        out["qc"] = {**out.get("qc", {}), "left_right": left_right(volume)}
        return out


def left_right(volume: np.ndarray) -> float:
    """The weighed sum of block means of a normalised (80, 96, 80) volume."""
    return float((block_means(volume) * _weights()).sum())


def block_means(volume: np.ndarray) -> np.ndarray:
    """(20, 24, 20) means of blocks of ``BLOCK``^3 voxels."""
    x, y, z = (size // BLOCK for size in volume.shape)
    return volume.astype(np.float64).reshape(x, BLOCK, y, BLOCK, z, BLOCK).mean(axis=(1, 3, 5))


@lru_cache(maxsize=1)
def _weights() -> np.ndarray:
    """(20, 24, 20), of opposite sign at mirrored places."""
    image = nib.Nifti1Image.from_filename(resource(MAP_FILE))
    if image.shape != MODEL_GRID.coarsen(BLOCK).shape:
        raise ValueError(f"the map of left and right has the shape {image.shape}")
    return image.get_fdata()
