"""A page as PDF, printed by Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from brainage.errors import ConfigError, InputError

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PATIENCE = 180  # s


def find_chromium() -> str:
    """Path of an installed Chromium or Chrome.

    Raises:
        ConfigError: there is none.
    """
    for name in _NAMES:
        found = shutil.which(name)
        if found:
            return found
    raise ConfigError(
        "--dicom", True, "needs Chromium or Chrome on the search path, which prints the page as PDF"
    )


def print_pdf(page: Path) -> bytes:
    """The page (an HTML file) on A4 sheets.

    Raises:
        ConfigError: no Chromium is installed.
        InputError: Chromium could not print it.
    """
    chromium = find_chromium()
    with tempfile.TemporaryDirectory(prefix="brainage-print-") as folder:
        pdf = Path(folder, "page.pdf")
        command = [
            chromium,
            "--headless",
            "--disable-gpu",
            "--no-pdf-header-footer",
            f"--user-data-dir={folder}/profile",
            f"--print-to-pdf={pdf}",
        ]
        # Chromium's sandbox does not start as root, as in most containers; the page loads nothing.
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")
        try:
            subprocess.run(
                [*command, page.absolute().as_uri()], check=True, capture_output=True, timeout=_PATIENCE
            )
            content = pdf.read_bytes()
        except (subprocess.SubprocessError, OSError) as error:
            raise InputError(
                page, "a page that Chromium did not print", "a PDF", f"try {Path(chromium).name} by hand"
            ) from error
    if not content.startswith(b"%PDF"):
        raise InputError(page, "a page that Chromium did not print", "a PDF", "print it by hand")
    return content
