"""Which files are scans, by their names, and which files make up one scan."""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path

from brainage.errors import InputError
from brainage.files import sha256_of

# Of NIfTI, FreeSurfer's MGH, and Analyze or NIfTI pairs, which are named by their header.
ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr")
NAMES = "NIfTI (.nii, .nii.gz), .mgz, an Analyze pair (.hdr and .img) or a DICOM folder"
_DICOM_ENDINGS = (".dcm", ".ima", ".dicom")
_DICOM_MAGIC_AT = 128  # bytes of preamble before "DICM"


def stem_of(path: Path) -> str:
    """A file's name without the ending of a scan; ``x`` for ``x.nii.gz``."""
    lower = path.name.lower()
    end = next((end for end in (*ENDINGS, ".img") if lower.endswith(end)), None)
    return path.name[: -len(end)] if end else path.stem


def is_volume(path: Path) -> bool:
    """Whether a name ends as that of a scan in one file or a pair; hidden files do not count."""
    return path.name.lower().endswith(ENDINGS) and not path.name.startswith(".")


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its ending, or without a known one by its first bytes."""
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    if path.suffix.lower() in _DICOM_ENDINGS:
        return True
    if is_volume(path):
        return False
    try:
        with path.open("rb") as file:
            return file.read(_DICOM_MAGIC_AT + 4)[_DICOM_MAGIC_AT:] == b"DICM"
    except OSError:
        return False


def header_of(path: Path) -> Path:
    """The file that stands for a scan: of a pair its header, whichever of the two was named."""
    if path.suffix.lower() != ".img":
        return path
    headers = [path.with_suffix(end) for end in (".hdr", ".HDR")]
    return next((header for header in headers if header.is_file()), headers[0])


def files_of(path: str | PathLike[str]) -> list[Path]:
    """All the files that one scan is made of: one file, both of a pair, or a DICOM series.

    Raises:
        InputError: the other file of a pair is missing, or a DICOM folder holds no single T1 series.
    """
    path = Path(path)
    if path.suffix.lower() == ".hdr" and path.is_file():
        pixels = next((p for p in (path.with_suffix(".img"), path.with_suffix(".IMG")) if p.is_file()), None)
        if pixels is None:
            raise InputError(
                path, "a header without its .img file", "both files of the pair", "copy the .img file as well"
            )
        orientation = path.with_suffix(".mat")  # which SPM leaves beside some pairs
        return [path, pixels, *([orientation] if orientation.is_file() else [])]
    if path.is_dir() or is_dicom(path):
        from brainage.data.dicom import choose_series

        return list(choose_series(path).paths)
    return [path]


def digest_of(path: str | PathLike[str]) -> str:
    """SHA-256 of a scan: of its file's bytes, or over the digests of its files in their order.

    Raises:
        InputError: no such file, or no scan in it.
    """
    path = Path(path)
    try:
        files = files_of(path)
        if len(files) == 1:
            return sha256_of(files[0])
        return hashlib.sha256("".join(sha256_of(file) for file in files).encode("ascii")).hexdigest()
    except FileNotFoundError as error:
        if path.is_symlink():
            found, remedy = "a link to a file that is not here", "fetch its content (datalad get)"
        else:
            found, remedy = "no such file", "check the path"
        raise InputError(path, found, NAMES, remedy) from error
    except PermissionError as error:
        raise InputError(path, "no permission to read it", "a readable file", "change its mode") from error
