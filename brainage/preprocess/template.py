"""The brain that scans are aligned to and normalised by: ICBM 2009a, symmetric (MNI152NLin2009aSym).

Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033. ``atlases/brain_template/build.py`` made the files.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from brainage.anatomy.grid import MODEL_GRID
from brainage.preprocess.itk import image_from_array
from brainage.resources import resource

FOLDER = "atlases/brain_template"
BRAIN_FILE = "tpl-MNI152NLin2009aSym_res-2_desc-brain_T1w.nii.gz"
MASK_FILE = "tpl-MNI152NLin2009aSym_res-2_desc-modelgrid_mask.nii.gz"
GREY_FILE = "tpl-MNI152NLin2009aSym_res-2_desc-modelgrid_label-GM_probseg.nii.gz"
WHITE_FILE = "tpl-MNI152NLin2009aSym_res-2_desc-modelgrid_label-WM_probseg.nii.gz"


class TemplateTissues(NamedTuple):
    """The template on ``MODEL_GRID``, (80, 96, 80).

    Attributes:
        inside: of the brain, bool.
        grey, white: probability of each matter, float32.
    """

    inside: np.ndarray
    grey: np.ndarray
    white: np.ndarray


@lru_cache(maxsize=1)
def template_brain() -> sitk.Image:
    """The brain at 2 mm, without skull, intensities in [0, 1]."""
    image = nib.Nifti1Image.from_filename(resource(FOLDER) / BRAIN_FILE)
    return image_from_array(np.asarray(image.dataobj), image.affine)


@lru_cache(maxsize=1)
def template_tissues() -> TemplateTissues:
    """Where the template has brain, grey and white matter."""
    inside, grey, white = (_on_model_grid(name) for name in (MASK_FILE, GREY_FILE, WHITE_FILE))
    return TemplateTissues(inside > 0, grey, white)


def _on_model_grid(name: str) -> np.ndarray:
    image = nib.Nifti1Image.from_filename(resource(FOLDER) / name)
    if image.shape != MODEL_GRID.shape or not np.array_equal(image.affine, MODEL_GRID.affine):
        raise ValueError(f"{name} is not on the model grid")
    return np.asarray(image.dataobj)
