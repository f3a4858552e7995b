"""Tables as spreadsheets write them: any of three separators, cells too many or too few, encodings."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainage.data.tables import read_table
from brainage.errors import InputError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'path,age\n"x, y.nii", 42 \n'),
        ("a.csv", "path;age\r\nx, y.nii;42\r\n"),
        ("a.csv", "path\tage\nx, y.nii\t42\n"),
        ("a.tsv", "path\tage\n\nx, y.nii\t42\t\t\n   \n"),
        ("a.tsv", 'path,age\n"x, y.nii",42\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_separator_is_the_header_s_own(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert read_table(tmp_path / name).to_dict("list") == {"path": ["x, y.nii"], "age": ["42"]}


def test_short_rows_and_repeated_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,age,age,\na.nii\nb.nii,0042,43\n")
    table = read_table(tmp_path / "a.csv")
    assert list(table) == ["path", "age", "age.3", "column 4"]
    assert table["age"].tolist() == ["", "0042"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"path,id\na.nii,01\nb.nii,02,extra\n", "3 cells in line 3 under a header of 2"),
        (b"path,id\na.nii,01,extra\n", "3 cells in line 2 under a header of 2"),
        ("path,site\na.nii,München\n".encode("latin-1"), "not UTF-8"),
        (b'path,id\n"a.nii,01\n', "no readable table"),
        (b"", "no readable table"),
        (b"path,id\n", "no rows"),
    ],
)
def test_what_would_be_misread_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_table(tmp_path / "a.csv")
