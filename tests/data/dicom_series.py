"""DICOM series that no scanner made, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk


def write_series(
    folder: Path,
    volume: np.ndarray,
    description: str = "t1_mprage_sag",
    uid: str = "1.2.3.1",
    skip: tuple[int, ...] = (),
    cosines: str = "0\\1\\0\\0\\0\\-1",
    spacing: tuple[float, float, float] = (2.0, 2.5, 3.0),
    **tags: str,
) -> list[Path]:
    """Write (columns, rows, slices) one slice a file, sagittal unless ``cosines`` say otherwise.

    Args:
        folder: to write to; the names do not sort in the order of the slices.
        volume: intensities.
        description, uid: of the series; the study is 1.2.3.
        skip: slices to leave out.
        cosines: ImageOrientationPatient.
        spacing: mm along columns' axis (a row), rows' axis and slices.
        tags: more, ``t0018_0081="3"``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    direction = np.array([float(part) for part in cosines.split("\\")])
    normal = np.cross(direction[:3], direction[3:])
    common = {
        "0008|0060": "MR",
        "0008|0008": "ORIGINAL\\PRIMARY\\M\\NORM",
        "0008|103e": description,
        "0010|0010": "Secret^Patient",
        "0010|0020": "MRN12345",
        "0010|0030": "19700101",
        "0020|000d": "1.2.3",
        "0020|000e": uid,
        **{name[1:].replace("_", "|"): value for name, value in tags.items()},
    }
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    paths = []
    for index in range(volume.shape[2]):
        if index in skip:
            continue
        image = sitk.GetImageFromArray(volume[:, :, index].T.astype(np.int16))
        image.SetSpacing(spacing[:2])
        position = np.array([-10.0, 20.0, 30.0]) + index * spacing[2] * normal
        facts = {
            **common,
            "0020|0037": cosines,
            "0020|0032": "\\".join(f"{value:g}" for value in position),
            "0020|0013": str(index + 1),
            "0018|0050": f"{spacing[2]:g}",
            "0008|0018": f"{uid}.{index + 1}",
        }
        for tag, value in facts.items():
            image.SetMetaData(tag, value)
        # Written in another order than the slices lie.
        paths.append(folder / f"{uid.rpartition('.')[2]}_{(index * 37) % 101:03d}.dcm")
        writer.SetFileName(str(paths[-1]))
        writer.Execute(image)
    return paths
