"""What preprocessing leaves of a scan: a native brain mask, a volume on the model grid, and a sidecar."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from brainage import __version__
from brainage.anatomy.grid import MODEL_GRID, SPACE
from brainage.data.cohort import Scan, output_entities
from brainage.errors import InputError
from brainage.files import replacing, sha256_of, write_json
from brainage.preprocess.provenance import same_software, write_itk_affine

VOLUME_END = f"_space-{SPACE}_res-2_desc-preproc_T1w"
MASK_END = "_desc-brain_mask"
TRANSFORM_END = f"_from-T1w_to-{SPACE}_mode-image_xfm"


_README = f"""T1-weighted scans preprocessed by brainage. Research use only; not a medical device.

For each scan: its brain in {SPACE} space at 2 mm (desc-preproc_T1w), a brain mask on its own grid
(desc-brain_mask), the affine between the two (xfm, ITK's text format) and a JSON file with the settings and
versions of every step and figures of quality. status.tsv has one row for every input, whatever became of it.
"""


@dataclass(frozen=True, eq=False)
class PreprocessedScan:
    """A scan on the model grid, and its way back.

    Attributes:
        participant_id, session_id: with prefixes; the session may be empty.
        volume_path: (80, 96, 80) on MODEL_GRID, grey matter 0.5, white matter 1, background 0.
        mask_path: brain mask on the scan's own grid.
        native_to_mni: (4, 4) world RAS mm of the scan -> world RAS mm of the template.
        native_shape: voxels of the scan's own grid.
        native_affine: (4, 4) its voxel -> world RAS mm.
        stripped: the scan came without skull.
        qc: figures by name.
        warnings: clauses; empty if nothing is doubtful.
        fingerprint: of the preprocessing, see ``chain.fingerprint``.
        resumed: an earlier run left it, and it was not done again.
    """

    participant_id: str
    session_id: str
    volume_path: Path
    mask_path: Path
    native_to_mni: np.ndarray
    native_shape: tuple[int, int, int]
    native_affine: np.ndarray
    stripped: bool
    qc: Mapping[str, float]
    warnings: tuple[str, ...]
    fingerprint: str
    resumed: bool = False

    def volume(self) -> np.ndarray:
        """(80, 96, 80) float32.

        Raises:
            InputError: missing, damaged, or not on the model grid.
        """
        array, affine = _read(self.volume_path)
        on_grid = array.shape == MODEL_GRID.shape and np.allclose(affine, MODEL_GRID.affine, atol=1e-3)
        if not on_grid or not np.isfinite(array).all():
            raise InputError(
                self.volume_path,
                "a volume that is not on the model grid",
                "what brainage preprocess wrote",
                "run brainage preprocess again",
            )
        return array

    def native_mask(self) -> np.ndarray:
        """(X, Y, Z) bool on the scan's own grid.

        Raises:
            InputError: missing, damaged, or of another shape.
        """
        array, _ = _read(self.mask_path)
        if array.shape != self.native_shape:
            raise InputError(
                self.mask_path,
                "a mask of another shape than its scan's",
                "what brainage preprocess wrote",
                "run brainage preprocess again",
            )
        return array > 0


def output_paths(scan: Scan, out_dir: str | PathLike[str]) -> tuple[Path, Path]:
    """Paths of the volume and of the mask of a scan."""
    folder = Path(out_dir) / scan.participant_id
    if scan.session_id:
        folder /= scan.session_id
    name = output_entities(scan.entities)
    mask_name = output_entities(scan.entities, keep_space=True)
    return folder / "anat" / f"{name}{VOLUME_END}.nii.gz", folder / "anat" / f"{mask_name}{MASK_END}.nii.gz"


def transform_of_volume(volume_path: Path) -> Path:
    """The ITK affine beside a volume, from the scan to the template."""
    return volume_path.with_name(
        volume_path.name.removesuffix(f"{VOLUME_END}.nii.gz") + f"{TRANSFORM_END}.txt"
    )


def sidecar_of(volume_path: Path) -> Path:
    """The JSON file beside a volume."""
    return volume_path.with_name(volume_path.name.removesuffix(".nii.gz") + ".json")


def is_preprocessed(path: str | PathLike[str]) -> bool:
    """Whether a file has the name of a volume of ``brainage preprocess`` and its sidecar beside it."""
    path = Path(path)
    return path.name.endswith(f"{VOLUME_END}.nii.gz") and path.is_file() and sidecar_of(path).is_file()


def find_preprocessed(folder: str | PathLike[str]) -> list[Path]:
    """All volumes that ``brainage preprocess`` left in a folder, sorted."""
    folder = Path(folder)
    name = f"*{VOLUME_END}.nii.gz"
    found = {*folder.glob(name), *folder.glob(f"sub-*/anat/{name}"), *folder.glob(f"sub-*/ses-*/anat/{name}")}
    found |= {*folder.glob(f"anat/{name}"), *folder.glob(f"ses-*/anat/{name}")}
    return sorted(path for path in found if path.name[0] != "." and is_preprocessed(path))


def write_outputs(
    scan: Scan,
    out_dir: str | PathLike[str],
    volume: np.ndarray,
    mask: np.ndarray,
    facts: Mapping[str, Any],
) -> PreprocessedScan:
    """Write mask, volume, affine and, last, the sidecar, without which the others count for nothing.

    Args:
        scan: where it came from.
        out_dir: folder of the derivatives.
        volume: (80, 96, 80) on MODEL_GRID.
        mask: on the scan's own grid, in its own orientation.
        facts: for the sidecar: at least those that :func:`read_preprocessed` reads.
    """
    volume_path, mask_path = output_paths(scan, out_dir)
    sidecar = sidecar_of(volume_path)
    sidecar.unlink(missing_ok=True)
    mask_image = nib.Nifti1Image(mask.astype(np.uint8), np.asarray(facts["NativeAffine"]))
    # Half precision is what training keeps; rounding to it halves the file.
    rounded = volume.astype(np.float16).astype(np.float32)
    for path, image, code in (
        (mask_path, mask_image, "scanner"),
        (volume_path, nib.Nifti1Image(rounded, MODEL_GRID.affine), "mni"),
    ):
        image.set_sform(image.affine, code)
        image.set_qform(image.affine, code)
        image.header.set_xyzt_units("mm")
        image.header["descrip"] = f"brainage {__version__}".encode("ascii")
        with replacing(path) as partial:
            nib.save(image, partial)
    transform_path = transform_of_volume(volume_path)
    with replacing(transform_path) as partial:
        write_itk_affine(partial, np.asarray(facts["NativeToMNI"]))
    mask_facts = {
        "Description": "Brain mask on the grid of the scan",
        "Type": "Brain",
        "Sources": facts.get("Sources", []),
        "SpatialReference": "orig",
        "Stripped": facts["Stripped"],
    }
    write_json(sidecar_of(mask_path), mask_facts)
    own = {
        "Mask": mask_path.name,
        "Transform": transform_path.name,
        "VolumeSHA256": sha256_of(volume_path),
        "MaskSHA256": sha256_of(mask_path),
        "TransformSHA256": sha256_of(transform_path),
    }
    ids = {"ParticipantId": scan.participant_id, "SessionId": scan.session_id}
    what = {
        "Description": "T1-weighted brain, N4-corrected, affinely aligned; grey matter 0.5, white matter 1",
        "Resolution": "2 mm isotropic",
    }
    write_json(sidecar, {**what, **ids, **facts, **own})
    return read_preprocessed(volume_path)


def read_preprocessed(volume_path: str | PathLike[str]) -> PreprocessedScan:
    """A scan that ``brainage preprocess`` wrote; the volume itself is read by its methods.

    Raises:
        InputError: no sidecar, or one that is damaged.
    """
    path = Path(volume_path)
    sidecar = sidecar_of(path)
    facts = read_sidecar(path)
    try:
        return PreprocessedScan(
            participant_id=str(facts["ParticipantId"]),
            session_id=str(facts["SessionId"]),
            volume_path=path,
            mask_path=path.with_name(Path(facts["Mask"]).name),
            native_to_mni=_matrix(facts["NativeToMNI"]),
            native_shape=_shape(facts["NativeShape"]),
            native_affine=_matrix(facts["NativeAffine"]),
            stripped=bool(facts["Stripped"]),
            qc={str(name): float(value) for name, value in facts["QC"].items()},
            warnings=tuple(str(warning) for warning in facts["Warnings"]),
            fingerprint=str(facts["Fingerprint"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            sidecar,
            "a sidecar that lacks what brainage writes",
            "one of brainage preprocess",
            "run brainage preprocess again",
        ) from error


def read_sidecar(volume_path: Path) -> dict[str, Any]:
    """The JSON object beside a volume.

    Raises:
        InputError: missing or no JSON object.
    """
    sidecar = sidecar_of(volume_path)
    try:
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            volume_path, "no sidecar beside it", "a volume of brainage preprocess", "run it again"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(sidecar, "no JSON", "a sidecar of brainage preprocess", "run it again") from error
    if not isinstance(facts, dict):
        raise InputError(sidecar, "no JSON object", "a sidecar of brainage preprocess", "run it again")
    return facts


def is_done(scan: Scan, out_dir: str | PathLike[str], fingerprint: str, source_sha256: str) -> bool:
    """Whether a scan's outputs are whole and came from this file by this preprocessing and software."""
    volume_path, mask_path = output_paths(scan, out_dir)
    try:
        facts = read_sidecar(volume_path)
        read_preprocessed(volume_path)
        return (
            facts["Fingerprint"] == fingerprint
            and facts["SourceSHA256"] == source_sha256
            and facts["VolumeSHA256"] == sha256_of(volume_path)
            and facts["MaskSHA256"] == sha256_of(mask_path)
            and facts["TransformSHA256"] == sha256_of(transform_of_volume(volume_path))
            # The earlier name, which BIDS keeps for the scanner's.
            and same_software(facts.get("Versions", facts.get("SoftwareVersions")))
        )
    except (InputError, KeyError, OSError):
        return False


@contextmanager
def refuse_unwritable(out_dir: Path) -> Iterator[None]:
    """Turn a failure to write a run's own files into a sentence.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            out_dir,
            f"a folder that cannot be written ({error.strerror or error})",
            "a writable folder with some space",
            "free space or choose another folder, and run again: finished scans are kept",
        ) from error


def describe_dataset(out_dir: str | PathLike[str]) -> None:
    """Write ``dataset_description.json``, which makes the folder a BIDS derivative, and a README."""
    with replacing(Path(out_dir) / "README") as partial:
        partial.write_text(_README, encoding="utf-8")
    write_json(
        Path(out_dir) / "dataset_description.json",
        {
            "Name": "brainage preprocessed T1w scans",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "brainage preprocess", "Version": __version__}],
        },
    )


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        image = nib.Nifti1Image.from_filename(path)
        return image.get_fdata(dtype=np.float32), image.affine
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(
            path, "no readable NIfTI file", "what brainage preprocess wrote", "run brainage preprocess again"
        ) from error


def _matrix(rows: Any) -> np.ndarray:
    matrix = np.array(rows, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError("not a 4 x 4 matrix")
    return matrix


def _shape(sizes: Any) -> tuple[int, int, int]:
    x, y, z = (int(size) for size in sizes)
    return x, y, z
