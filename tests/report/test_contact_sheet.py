"""The contact sheet of a search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from brainage.report.contact_sheet import GAP, contact_sheet


def test_images_stand_in_order_and_missing_ones_leave_their_place(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (200, 0, 0)).save(tmp_path / "red.png")
    # 16-bit grey: half of its range is half as bright, not white.
    Image.fromarray(np.full((20, 20), 32896, dtype=np.uint16)).save(tmp_path / "grey.png")
    (tmp_path / "text.png").write_text("no picture")
    names = ("red", "grey", "text", "gone")
    found = [(tmp_path / f"{name}.png", name) for name in names]
    sheet = np.asarray(contact_sheet("a query", found, tile=60, columns=2))
    top = sheet.shape[0] - 2 * (60 + 18 + GAP) - GAP // 2
    middles = [
        sheet[top + row * (60 + 18 + GAP) + 30, GAP + column * (60 + GAP) + 30]
        for row in range(2)
        for column in range(2)
    ]
    assert middles[0].tolist() == [200, 0, 0]
    np.testing.assert_allclose(middles[1], 128, atol=1)
    for column in range(2):
        corner = sheet[top + 60 + 18 + GAP, GAP + column * (60 + GAP)]
        assert corner.tolist() != [255, 255, 255]  # a frame stands where the picture would
