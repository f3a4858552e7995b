"""DICOM files of a report: what they hold, whose they are, and what an independent validator says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from brainage.cli.main import app
from brainage.errors import ConfigError, InputError
from brainage.report import printing
from brainage.report.dicom import (
    ENCAPSULATED_PDF,
    SECONDARY_CAPTURE,
    Origin,
    read_source,
    write_encapsulated_pdf,
    write_secondary_capture,
)
from brainage.report.html import write_pages

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
PDF = b"%PDF-1.4\n%odd number of bytes\n"
PIXELS = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)


@pytest.fixture
def png(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "mosaic.png")
    return tmp_path / "mosaic.png"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """One slice of a hospital's series."""
    item: Any = pydicom.Dataset()
    item.file_meta = pydicom.dataset.FileMetaDataset()
    item.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    item.SOPClassUID, item.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.4.5"
    item.SpecificCharacterSet = "ISO_IR 192"
    item.PatientName, item.PatientID, item.PatientBirthDate, item.PatientSex = (
        "Muster^Zoë",
        "0815",
        "19500101",
        "F",
    )
    item.StudyInstanceUID, item.SeriesInstanceUID, item.StudyID = "1.2.3", "1.2.3.4", "7"
    item.StudyDate, item.StudyTime, item.AccessionNumber = "20200102", "101500", "A1"
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "notes.txt").write_text("no DICOM file")
    item.save_as(tmp_path / "series" / "slice", enforce_file_format=True)
    return tmp_path / "series"


def both(folder: Path, png: Path, origin: Origin) -> list[Any]:
    write_encapsulated_pdf(folder / "report.dcm", PDF, origin)
    write_secondary_capture(folder / "maps.dcm", png, origin)
    return [pydicom.dcmread(folder / name) for name in ("report.dcm", "maps.dcm")]


def test_pdf_and_pixels_come_back_as_they_were(tmp_path: Path, png: Path) -> None:
    document, picture = both(tmp_path, png, Origin("sub-1", "Brain age report: sub-1"))
    assert document.SOPClassUID == ENCAPSULATED_PDF
    assert len(document.EncapsulatedDocument) % 2 == 0
    assert document.EncapsulatedDocument[: document.EncapsulatedDocumentLength] == PDF
    assert picture.SOPClassUID == SECONDARY_CAPTURE
    assert np.array_equal(picture.pixel_array, PIXELS)
    assert "Research use only" in picture.DerivationDescription
    for item in (document, picture):
        assert item.PatientID == "sub-1"
        assert item.PatientBirthDate == ""
    uids = {
        item[name].value for item in (document, picture) for name in ("SOPInstanceUID", "SeriesInstanceUID")
    }
    assert len(uids) == 4


def test_files_join_the_study_and_patient_of_a_source(tmp_path: Path, png: Path, source: Path) -> None:
    items = both(tmp_path, png, Origin("sub-1", "Report", read_source(source)))
    for item in items:
        assert (item.PatientName, item.PatientID, item.PatientBirthDate) == ("Muster^Zoë", "0815", "19500101")
        assert (item.StudyInstanceUID, item.StudyDate, item.AccessionNumber) == ("1.2.3", "20200102", "A1")
        assert item.SeriesInstanceUID != "1.2.3.4"
    assert items[0].SourceInstanceSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"
    assert items[1].SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no DICOM file of a study"):
        read_source(tmp_path)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("joined", [False, True])
def test_dciodvfy_finds_no_error(tmp_path: Path, png: Path, source: Path, joined: bool) -> None:
    both(tmp_path, png, Origin("sub-1", "Report", read_source(source) if joined else None))
    for name in ("report.dcm", "maps.dcm"):
        told = subprocess.run(["dciodvfy", "-new", str(tmp_path / name)], capture_output=True, text=True)
        lines = (told.stdout + told.stderr).splitlines()
        assert not [line for line in lines if line.startswith("Error")], "\n".join(lines)


ROWS = (
    "participant_id,session_id,path,predicted_age,status,message\nsub-1,,sub-1_T1w.nii.gz,,failed,no brain\n"
)


def test_without_chromium_it_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ages.csv").write_text(ROWS)
    monkeypatch.setattr(printing.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="needs Chromium"):
        write_pages(tmp_path / "out", tmp_path / "ages.csv", dicom=True)
    assert not (tmp_path / "out").exists()


def test_a_series_of_one_scan_is_not_given_to_several(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainage.report.html.require_programs", lambda: None)
    (tmp_path / "ages.csv").write_text(ROWS + "sub-2,,sub-2_T1w.nii.gz,,failed,no brain\n")
    with pytest.raises(ConfigError, match="one scan, whose series it is, not with 2"):
        write_pages(tmp_path / "out", tmp_path / "ages.csv", dicom=True, dicom_source=source)


@pytest.mark.skipif(not any(map(shutil.which, printing._NAMES)), reason="no Chromium on this machine")
def test_the_command_prints_the_page_of_a_failed_scan(tmp_path: Path) -> None:
    (tmp_path / "ages.csv").write_text(ROWS)
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["report", str(tmp_path / "ages.csv"), "-o", str(out), "--dicom"])
    assert result.exit_code == 0, result.output
    item = pydicom.dcmread(out / "dicom" / "sub-1_report.dcm")
    assert item.EncapsulatedDocument.startswith(b"%PDF")
    assert item.DocumentTitle == "Brain age report: sub-1"
    assert not (out / "dicom" / "sub-1_maps.dcm").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "page.html", "--dicom"], "pages of scans"),
        (["-o", "out", "--dicom-source", "."], "comes with --dicom"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ages.csv").write_text(ROWS)
    result = CliRunner().invoke(app, ["report", "ages.csv", *options])
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())
