"""The report of a scan for a hospital: the page as Encapsulated PDF, its maps as Secondary Capture (DICOM).

Both belong to a series of their own. Given a file of the scan's own series, they join its study and carry its
patient's identification, as an archive needs; otherwise the study is new and the patient is the BIDS
participant. Nothing of the patient is taken from anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from brainage import __version__
from brainage.errors import ConfigError, InputError
from brainage.files import replacing
from brainage.report.printing import find_chromium, print_pdf

if TYPE_CHECKING:
    from pydicom import Dataset

ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_EXPLICIT = "1.2.840.10008.1.2.1"
# What files of one study and patient share (DICOM PS3.3, Patient and General Study modules).
_SHARED = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber", "StudyDescription",
    "PatientAge", "PatientSize", "PatientWeight",
)  # fmt: skip
_SERIES_NUMBERS = {"DOC": 9001, "OT": 9002}
_DISCLAIMER = "Research use only. Not a medical device; not for diagnosis."


@dataclass(frozen=True)
class Origin:
    """Whose report it is.

    Attributes:
        participant_id: of BIDS; the patient's number where there is no ``source``.
        title: of the document.
        source: a DICOM file of the scan, if there is one.
    """

    participant_id: str
    title: str
    source: Dataset | None = None


def require_programs() -> None:
    """Refuse, before anything is computed, where something that is needed is not installed.

    Raises:
        ConfigError: pydicom or Chromium is missing.
    """
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        rule = "needs pydicom: pip install 'brainage[dicom]'"
        raise ConfigError("--dicom", True, rule) from error
    find_chromium()


def read_source(path: str | PathLike[str]) -> Dataset:
    """The header of a DICOM file, or of the first one in a folder.

    Raises:
        InputError: there is none, or it names no study.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    path = Path(path)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        try:
            header = dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue
        if header.get("StudyInstanceUID") and header.get("SOPInstanceUID"):
            return header
    raise InputError(
        path, "no DICOM file of a study", "the series that the scan was made from", "give its folder"
    )


def write_encapsulated_pdf(path: str | PathLike[str], pdf: bytes, origin: Origin) -> None:
    """Write a PDF as a DICOM document.

    Args:
        path: of the .dcm file.
        pdf: its bytes.
        origin: whose it is.
    """
    item = _item(ENCAPSULATED_PDF, "DOC", origin)
    item.DocumentTitle = origin.title[:1024]
    item.ConceptNameCodeSequence = []
    item.MIMETypeOfEncapsulatedDocument = "application/pdf"
    item.AcquisitionDateTime = ""
    # The number of bytes without the one that makes it even.
    item.EncapsulatedDocumentLength = len(pdf)
    item.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    _save(item, path)


def write_secondary_capture(path: str | PathLike[str], png: str | PathLike[str], origin: Origin) -> None:
    """Write a picture as a DICOM image of 8 bits a colour.

    Args:
        path: of the .dcm file.
        png: the picture.
        origin: whose it is.
    """
    with Image.open(png) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    item = _item(SECONDARY_CAPTURE, "OT", origin)
    item.SeriesDescription = "brainage: maps (research use only)"
    item.ImageType = ["DERIVED", "SECONDARY"]
    item.DerivationDescription = f"{origin.title}. {_DISCLAIMER}"[:1024]
    item.PatientOrientation = item.Laterality = ""
    item.SamplesPerPixel, item.PhotometricInterpretation, item.PlanarConfiguration = 3, "RGB", 0
    item.Rows, item.Columns = pixels.shape[:2]
    item.BitsAllocated = item.BitsStored = 8
    item.HighBit, item.PixelRepresentation = 7, 0
    data = pixels.tobytes()
    item.PixelData = data + b"\0" * (len(data) % 2)
    item["PixelData"].VR = "OB"
    _save(item, path)


def _item(sop_class: str, modality: str, origin: Origin) -> Any:
    """A data set with everything that both kinds share."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import generate_uid

    item: Any = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = _EXPLICIT
    item.SpecificCharacterSet = "ISO_IR 192"
    now = datetime.now(UTC)
    item.InstanceCreationDate = item.SeriesDate = item.ContentDate = now.strftime("%Y%m%d")
    item.InstanceCreationTime = item.SeriesTime = item.ContentTime = now.strftime("%H%M%S")
    item.TimezoneOffsetFromUTC = "+0000"
    item.SOPClassUID, item.SOPInstanceUID = sop_class, generate_uid(prefix=None)
    item.Modality, item.SeriesInstanceUID = modality, generate_uid(prefix=None)
    item.SeriesNumber, item.InstanceNumber = _SERIES_NUMBERS[modality], 1
    item.SeriesDescription = "brainage: report (research use only)"
    item.Manufacturer, item.ManufacturerModelName = "brainage", "brainage"
    item.SoftwareVersions = __version__
    item.ConversionType = "WSD"
    # The pages name the participant, which a site may have chosen to identify the patient.
    item.BurnedInAnnotation = "YES"
    item.PatientID = origin.participant_id
    item.PatientName = item.PatientBirthDate = item.PatientSex = ""
    item.StudyInstanceUID = generate_uid(prefix=None)
    item.StudyDate, item.StudyTime = item.ContentDate, item.ContentTime
    item.ReferringPhysicianName = item.StudyID = item.AccessionNumber = ""
    source = origin.source
    if source is not None:
        for name in _SHARED:
            if name in source:
                item[name] = source[name]
        reference: Any = Dataset()
        reference.ReferencedSOPClassUID = source.SOPClassUID
        reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
        # A document and an image name what they were made from by different attributes.
        setattr(item, "SourceInstanceSequence" if modality == "DOC" else "SourceImageSequence", [reference])
    return item


def _save(item: Any, path: str | PathLike[str]) -> None:
    with replacing(path) as partial:
        item.save_as(partial, enforce_file_format=True)


def write_dicom(folder: Path, page: Path, mosaic: Path | None, origin: Origin) -> list[Path]:
    """Print a scan's page and write it and the picture of its maps as DICOM files.

    Args:
        folder: to write to.
        page: the HTML file; names begin as its does.
        mosaic: the picture, if there is one.
        origin: whose they are.

    Raises:
        ConfigError: no Chromium is installed.
        InputError: Chromium could not print the page.
    """
    paths = [folder / f"{page.stem}_report.dcm"]
    write_encapsulated_pdf(paths[0], print_pdf(page), origin)
    if mosaic is not None:
        paths.append(folder / f"{page.stem}_maps.dcm")
        write_secondary_capture(paths[1], mosaic, origin)
    return paths
