"""Between MONAI's tensors (RAS) and SimpleITK's images (LPS)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor

from brainage.anatomy.grid import MODEL_GRID

# ITK's world grows to the left and back, NIfTI's to the right and front.
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")


def packed(array: np.ndarray) -> np.ndarray:
    """A three-dimensional array in C order, itself if it is.

    Copied plane by plane, which takes less than half of numpy's time where the order of the axes turns round:
    the lines of a plane stay in the processor's cache.
    """
    if array.flags.c_contiguous:
        return array
    copy = np.empty(array.shape, array.dtype)
    for plane in range(array.shape[1]):
        copy[:, plane] = array[:, plane]
    return copy


def image_from_array(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """(X, Y, Z) array and its (4, 4) voxel -> RAS mm affine as a SimpleITK image (float32 or uint8)."""
    lps = RAS_TO_LPS @ np.asarray(affine, dtype=np.float64)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    kind = np.uint8 if array.dtype in (np.bool_, np.uint8) else np.float32
    image = sitk.GetImageFromArray(packed(array.astype(kind, copy=False).transpose(2, 1, 0)))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def array_from_image(image: sitk.Image) -> np.ndarray:
    """The (X, Y, Z) array of a SimpleITK image."""
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0)


def model_grid_image() -> sitk.Image:
    """An empty image on ``MODEL_GRID``, as reference for resampling."""
    return image_from_array(np.zeros(MODEL_GRID.shape, np.uint8), MODEL_GRID.affine)


def image_from_tensor(tensor: MetaTensor) -> sitk.Image:
    """A (1, X, Y, Z) MetaTensor as a SimpleITK image."""
    return image_from_array(tensor[0].cpu().numpy(), tensor.affine.numpy())


def masked_image(image: MetaTensor, mask: MetaTensor) -> sitk.Image:
    """A scan, zero where its mask (1, X, Y, Z) of zeros and ones is, as a SimpleITK image."""
    values = image[0].cpu().numpy() * mask[0].cpu().numpy().astype(np.float32)
    return image_from_array(values, image.affine.numpy())


def tensor_from_image(image: sitk.Image) -> MetaTensor:
    """A SimpleITK image as a (1, X, Y, Z) MetaTensor with its own voxel -> RAS mm affine."""
    linear = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine = RAS_TO_LPS @ np.vstack([np.column_stack([linear, image.GetOrigin()]), [0.0, 0.0, 0.0, 1.0]])
    array = np.ascontiguousarray(array_from_image(image))
    return MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(affine))


def tensor_like(array: np.ndarray, reference: MetaTensor) -> MetaTensor:
    """An (X, Y, Z) array as a (1, X, Y, Z) MetaTensor on the grid of ``reference``."""
    return MetaTensor(torch.from_numpy(packed(array))[None], affine=reference.affine.clone())


def matrix_of(transform: sitk.Transform) -> np.ndarray:
    """The (4, 4) RAS mm matrix of an affine SimpleITK transform (which works in LPS mm)."""
    linear = np.column_stack(
        [
            np.subtract(transform.TransformPoint(p), transform.TransformPoint((0, 0, 0)))
            for p in np.eye(3).tolist()
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, transform.TransformPoint((0.0, 0.0, 0.0))
    return RAS_TO_LPS @ matrix @ RAS_TO_LPS


def transform_of(matrix: np.ndarray) -> sitk.AffineTransform:
    """The SimpleITK transform (LPS mm) of a (4, 4) RAS mm matrix."""
    lps = RAS_TO_LPS @ matrix @ RAS_TO_LPS
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


class _ThreadLimit:
    """ITK has one number of threads for the process: the first user sets it to 1, the last one resets it."""

    def __init__(self) -> None:
        self.lock, self.users, self.before = threading.Lock(), 0, 1

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if not self.users:
                self.before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
                sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if not self.users:
                    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(self.before)


# For filters that sum over voxels, each thread its share: their last digits depend on the number of threads,
# and an optimiser makes that visible. Filters that treat voxels one by one need no such care.
one_thread = _ThreadLimit()


def in_parallel(function: Callable[[ArgumentT], ResultT], items: Iterable[ArgumentT]) -> list[ResultT]:
    """``function`` of each item, in their order, in as many Python threads as ITK may use.

    ITK releases Python's lock while it computes. Unlike ITK's own threads these do not share a sum, so that
    the results do not depend on their number.
    """
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    if threads == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))
