"""A user's own brain mask or transform, which take the place of a stage."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from brainage.config import PreprocessRecipe
from brainage.data.cohort import Scan
from brainage.data.formats import digest_of, stem_of
from brainage.errors import InputError
from brainage.files import sha256_of
from brainage.preprocess.itk import matrix_of

# Largest difference of two affines that count as the same grid, mm at a corner of the scan.
SAME_GRID_MM = 0.1


def own_files(scan: Scan, recipe: PreprocessRecipe) -> dict[str, Path]:
    """The files that the recipe's templates name for a scan: ``own_mask``, ``own_transform``, or neither.

    Raises:
        InputError: a file is not there; a stage that was to be replaced is never done silently instead.
    """
    found = {}
    for key, template in (("own_mask", recipe.mask), ("own_transform", recipe.transform)):
        if template is None:
            continue
        path = scan.path.parent / template.format(
            participant_id=scan.participant_id,
            session_id=scan.session_id,
            name=stem_of(scan.path).removesuffix("_T1w"),
        )
        if not path.is_file():
            what = key.removeprefix("own_")
            raise InputError(
                scan.path,
                f"no file {path.name} where the recipe's {what} is looked for",
                f"a {what} for every scan",
                f"add it, or run this scan without the setting {what}",
            )
        found[key] = path
    return found


def source_digest(scan: Scan, recipe: PreprocessRecipe) -> str:
    """SHA-256 of what a volume is made from: of the scan, or of its, the mask's and the transform's digests.

    Raises:
        InputError: as :func:`own_files`, or the scan's files are not whole.
    """
    digests = [digest_of(scan.path), *(sha256_of(path) for path in own_files(scan, recipe).values())]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def read_mask(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool, above one half in the file, which may hold a mask, labels or a probability.

    Args:
        path: NIfTI file.
        shape: of the scan as stored.
        affine: (4, 4) its voxel -> world RAS mm.

    Raises:
        InputError: unreadable, empty, or on another grid than the scan.
    """
    try:
        image = nib.Nifti1Image.from_filename(path)
        values = np.asarray(image.dataobj).squeeze()
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(path, "no readable NIfTI file", "a brain mask", "write it again") from error
    corners = np.array(np.meshgrid(*((0, size) for size in shape))).reshape(3, -1).T
    apart = nib.affines.apply_affine(image.affine, corners) - nib.affines.apply_affine(affine, corners)
    if values.shape != tuple(shape) or np.abs(apart).max() > SAME_GRID_MM:
        raise InputError(
            path, "a mask on another grid than its scan's", "a mask voxel by voxel", "resample it to the scan"
        )
    mask = np.asarray(values > 0.5)
    if not mask.any():
        raise InputError(path, "an empty mask", "a brain mask", "draw it again")
    return mask


def read_transform(path: Path) -> np.ndarray:
    """(4, 4) world RAS mm of the scan -> world RAS mm of MNI152NLin2009aSym.

    Args:
        path: ITK transform (``.txt``, ``.tfm``, ``.mat`` or ``.h5``), as ``brainage preprocess`` writes them
            and ANTs its ``0GenericAffine.mat``: from points of the template to points of the scan, LPS mm.

    Raises:
        InputError: unreadable, not affine, or one that cannot be inverted.
    """
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(
            path, "no readable ITK transform", "an affine in ITK's format", "convert it, as with nitransforms"
        ) from error
    if not transform.IsLinear():
        raise InputError(path, "a deformation", "an affine transform", "give its affine part")
    matrix = matrix_of(transform)
    if not np.isfinite(matrix).all() or np.linalg.det(matrix[:3, :3]) <= 1e-3:
        raise InputError(
            path, "a mirroring or degenerate matrix", "a turn, shift and scale", "compute the transform again"
        )
    return np.linalg.inv(matrix)
