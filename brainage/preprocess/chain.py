"""The one chain that every scan goes through, for training and for prediction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose, CopyItemsd

from brainage.anatomy.grid import MODEL_GRID, SPACE
from brainage.config import PreprocessRecipe
from brainage.data.cohort import Scan
from brainage.errors import BrainageError, InputError
from brainage.files import has_room_for_name, write_json
from brainage.preprocess.brain_extraction import BrainExtractiond
from brainage.preprocess.geometry import to_original
from brainage.preprocess.load import LoadScand
from brainage.preprocess.n4 import N4BiasCorrectiond
from brainage.preprocess.normalize import NormalizeIntensityd
from brainage.preprocess.outputs import (
    PreprocessedScan,
    is_done,
    output_paths,
    read_preprocessed,
    read_sidecar,
    sidecar_of,
    write_outputs,
)
from brainage.preprocess.own_files import own_files, source_digest
from brainage.preprocess.provenance import software_versions, steps_of
from brainage.preprocess.qc import MeasureQualityd, judge, not_of_figures
from brainage.preprocess.quality_image import MeasureImageQualityd
from brainage.preprocess.quality_mirror import MeasureLeftRightd
from brainage.preprocess.registration import RegisterToTemplated
from brainage.preprocess.resample import ResampleToModelGridd

# Raise it whenever a change anywhere in the chain changes its volumes: models and volumes of another
# version are told apart by it.
CHAIN_VERSION = 2


class QualityError(InputError):
    """What is wrong with a scan showed only while it was preprocessed, or in the figures of the result.

    Attributes:
        qc: the figures that were measured till then.
    """

    qc: Mapping[str, float] = {}


def preprocess_chain(recipe: PreprocessRecipe) -> Compose:
    """From ``{"image": path}`` to a volume on the model grid; the keys are described where they are added.

    ``own_mask`` and ``own_transform``, see ``own_files``, may be there too.
    """
    n4 = partial(N4BiasCorrectiond, "image", shrink_mm=recipe.n4_shrink_mm)
    steps = [
        LoadScand("image"),
        CopyItemsd("image", names="uncorrected"),
        *([n4()] if recipe.bias_correction else []),
        BrainExtractiond(mode=recipe.brain_extraction),
        *([n4(mask_key="brain_mask")] if recipe.bias_correction else []),
        RegisterToTemplated(enabled=recipe.registration),
        ResampleToModelGridd(),
        MeasureQualityd(),
        MeasureImageQualityd(),
        NormalizeIntensityd(),
        MeasureLeftRightd(),
    ]
    return Compose(steps)


def fingerprint(recipe: PreprocessRecipe) -> str:
    """16 hexadecimal digits: volumes are comparable if theirs are equal.

    Settings at their defaults are left out, so that a new setting whose default changes nothing leaves the
    volumes and models of before valid. What only judges volumes (``qc``) does not count, and of own masks and
    transforms just that there are any.
    """
    varied = recipe.model_dump(mode="json", exclude_defaults=True, exclude={"qc"})
    varied |= {name: True for name in ("mask", "transform") if name in varied}
    settings = {
        "chain": CHAIN_VERSION,
        "space": SPACE,
        "shape": MODEL_GRID.shape,
        "affine": MODEL_GRID.affine.tolist(),
        "recipe": varied,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def preprocess_scan(
    scan: Scan, out_dir: str | PathLike[str], recipe: PreprocessRecipe, force: bool = False
) -> PreprocessedScan:
    """Take one scan through the chain and write what comes out of it.

    A finished scan is judged anew where the recipe's limits of quality are others than it was judged by.

    Args:
        scan: raw, with or without skull.
        out_dir: folder of the derivatives.
        recipe: what may vary.
        force: do it again, though whole outputs of the same file, version and settings are there.

    Raises:
        InputError: the scan cannot be used. ``QualityError`` if that is known only from the result.
    """
    source, mark = source_digest(scan, recipe), fingerprint(recipe)
    volume_path, _ = output_paths(scan, out_dir)
    if not force and is_done(scan, out_dir, mark, source):
        return replace(_judged_anew(scan, volume_path, recipe), resumed=True)
    if not has_room_for_name(volume_path):
        raise InputError(
            scan.path,
            f"a name that would make an output's name {len(volume_path.name)} letters long",
            "names of outputs that a disk can take (about 245 letters)",
            "shorten the labels in the file's name",
        )
    # From here on, what an earlier run left is out of date.
    sidecar_of(volume_path).unlink(missing_ok=True)
    chain = preprocess_chain(recipe)
    own = own_files(scan, recipe)
    data = _run(chain, scan, own)
    # Rounded first, so that the verdict can be given again from the sidecar.
    qc = {name: float(f"{value:.5g}") for name, value in data["qc"].items()}
    doubts, failures = judge(qc, recipe.qc)
    if failures:
        raise _refusal(scan, failures, qc)
    mask = to_original(data["brain_mask"][0].cpu().numpy(), data["native_affine"])
    facts: dict[str, Any] = {
        "Sources": [_relative_source(scan)],
        "SourceSHA256": source,
        "SpatialReference": SPACE,
        "SkullStripped": True,
        "Stripped": bool(data["stripped"]),
        "OwnFiles": {key.removeprefix("own_"): path.name for key, path in own.items()},
        "NativeToMNI": np.asarray(data["native_to_mni"], dtype=float).tolist(),
        "NativeShape": [int(size) for size in data["native_shape"]],
        "NativeAffine": np.asarray(data["native_affine"], dtype=float).tolist(),
        "QC": qc,
        "Warnings": [*data["warnings"], *doubts],
        "Fingerprint": mark,
        "ChainVersion": CHAIN_VERSION,
        "Recipe": _without_folders(recipe),
        "Steps": steps_of(chain.transforms),
        "Versions": software_versions(),
    }
    return write_outputs(scan, out_dir, data["volume"][0].cpu().numpy(), mask, facts)


def _judged_anew(scan: Scan, volume_path: Path, recipe: PreprocessRecipe) -> PreprocessedScan:
    """A finished scan by the limits of this recipe, which its sidecar then has.

    Raises:
        QualityError: they refuse it; its outputs count for nothing then.
    """
    facts, settings = read_sidecar(volume_path), _without_folders(recipe)
    if facts.get("Recipe") != settings:
        doubts, failures = judge(facts["QC"], recipe.qc)
        if failures:
            sidecar_of(volume_path).unlink()
            raise _refusal(scan, failures, facts["QC"])
        warnings = [*not_of_figures(facts["Warnings"]), *doubts]
        write_json(sidecar_of(volume_path), facts | {"Warnings": warnings, "Recipe": settings})
    return read_preprocessed(volume_path)


def _refusal(scan: Scan, failures: list[str], qc: Mapping[str, float]) -> QualityError:
    error = QualityError(
        scan.path,
        "; ".join(failures),
        "a T1-weighted scan of a whole brain",
        "look at it, and at its orientation, in a viewer",
    )
    error.qc = qc
    return error


def _without_folders(recipe: PreprocessRecipe) -> dict[str, Any]:
    """The recipe for a sidecar, which tells no path of the user's machine."""
    settings = recipe.model_dump(mode="json")
    names = {
        key: settings[key].replace("\\", "/").rpartition("/")[2]
        for key in ("mask", "transform")
        if settings[key]
    }
    return settings | names


def _run(chain: Compose, scan: Scan, own: Mapping[str, Path]) -> dict[str, Any]:
    data: dict[str, Any] = {"image": scan.path, **own}
    try:
        # One by one, so that after an error the figures measured before it are still at hand.
        for transform in chain.transforms:
            data = transform(data)
        return data
    except Exception as error:
        # MONAI's transforms may wrap what their parts raise.
        causes: list[BaseException] = [error]
        while causes[-1].__cause__ is not None and len(causes) < 10:
            causes.append(causes[-1].__cause__)
        for cause in reversed(causes):
            if isinstance(cause, BrainageError):
                raise cause from None
        root = causes[-1]
        if isinstance(root, MemoryError):
            raise InputError(
                scan.path, "too many voxels for this machine's memory", "a scan at 0.5 to 3 mm", "resample it"
            ) from error
        # SimpleITK knows only RuntimeError.
        if isinstance(root, ValueError) or "itk::" in str(root):
            said = " ".join(str(root).rpartition("ITK ERROR:")[2].split())
            refusal = QualityError(
                scan.path,
                f"a scan on which preprocessing failed: {said}",
                "a T1-weighted scan of a whole brain",
                "look at it in a viewer",
            )
            refusal.qc = {name: float(value) for name, value in data.get("qc", {}).items()}
            raise refusal from error
        raise root from None


def _relative_source(scan: Scan) -> str:
    """The path from the BIDS folder on; a bare name for a file that lies in none."""
    parts = scan.path.absolute().parts
    if scan.participant_id in parts[:-1]:
        start = len(parts) - 1 - parts[::-1].index(scan.participant_id)
        return "/".join(parts[start:])
    return scan.path.name
