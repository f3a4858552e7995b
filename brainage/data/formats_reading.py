"""Opening a scan of any accepted format, with a bound on what a damaged or hostile file can cost."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.analyze import AnalyzeImage
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from brainage.data.formats import NAMES, files_of, header_of, is_dicom
from brainage.errors import InputError

MOST_VOXELS = 1024 * 1024 * 512
MOST_EXTRA = 1 << 26  # bytes of a file besides its voxels: header extensions and tags; a gzip bomb has more
_CHUNK = 1 << 24
_BROKEN = (
    ImageFileError,
    HeaderDataError,
    MGHError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    OverflowError,
    zlib.error,
)


def open_image(path: Path) -> SpatialImage:
    """A scan with its header read and its voxels on disk (of DICOM, in memory).

    Raises:
        InputError: missing, unreadable, no format of a scan, or a header that asks for absurd memory.
    """
    path = header_of(Path(path))
    if path.is_symlink() and not path.exists():
        raise InputError(
            path, "a link to a file that is not here", "a NIfTI file", "fetch its content (datalad get)"
        )
    if path.is_dir() or is_dicom(path):
        from brainage.data.dicom_volume import open_series

        return open_series(path)
    if not path.is_file():
        raise InputError(path, "no such file", NAMES, "check the path")
    if path.stat().st_size == 0:
        raise InputError(path, "an empty file", NAMES, "copy it again from its source")
    files_of(path)
    try:
        _refuse_long_extensions(path)
        image = nib.load(path)
    except PermissionError as error:
        raise InputError(path, "no permission to read it", "a readable file", "change its mode") from error
    except _BROKEN as error:
        raise InputError(
            path,
            "no readable header of an image",
            NAMES,
            "convert the scan with dcm2niix, or copy it again from its source",
        ) from error
    if not isinstance(image, nib.Nifti1Pair | nib.MGHImage | AnalyzeImage):
        kind = type(image).__name__.removesuffix("Image")
        raise InputError(path, f"a {kind} file", NAMES, "convert it, for instance with mri_convert")
    return image


def read_values(image: SpatialImage, shape: tuple[int, ...], path: Path) -> np.ndarray:
    """Intensities (X, Y, Z) float32, with the file's slope and intercept applied.

    Raises:
        InputError: fewer or far more data than the header promises, or damaged ones.
    """
    path = header_of(Path(path))
    try:
        stored: Any = image.dataobj
        if path.suffix.lower() in (".gz", ".mgz"):
            where = stored.shape, stored.dtype, stored.offset, stored.slope, stored.inter
            stored = ArrayProxy(io.BytesIO(_decompressed(image, path)), where)
        with np.errstate(all="ignore"):
            return np.asarray(stored).astype(np.float32).reshape(shape)
    except _BROKEN as error:
        raise InputError(
            path,
            "fewer data than its header promises, or damaged ones",
            "a whole file",
            "copy it again from its source",
        ) from error


def _decompressed(image: SpatialImage, path: Path) -> bytes:
    """Read to the checksum at the end, where nibabel stops short, but not beyond what the header promises."""
    promised = int(np.prod(image.shape, dtype=np.int64)) * image.get_data_dtype().itemsize
    chunks, length = [], 0
    with gzip.open(path) as stream:
        while chunk := stream.read(_CHUNK):
            chunks.append(chunk)
            length += len(chunk)
            if length > promised + MOST_EXTRA:
                raise InputError(
                    path,
                    f"more than {length >> 20} MB of data where its header promises {promised >> 20} MB",
                    "a whole scan and nothing else",
                    "copy it again from its source",
                )
    return b"".join(chunks)


def _refuse_long_extensions(path: Path) -> None:
    """nibabel reads a NIfTI file's extensions with its header, however long they claim to be."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
        raw = stream.read(nib.Nifti2Header.template_dtype.itemsize)
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        size = kind.template_dtype.itemsize
        if kind.may_contain_header(raw) and len(raw) >= size:
            start = float(kind(raw[:size], check=False)["vox_offset"])
            if not 0 <= start <= MOST_EXTRA:
                raise InputError(
                    path,
                    f"voxels that begin at byte {start:g}",
                    "a header of ordinary length",
                    "convert the scan again with dcm2niix",
                )
