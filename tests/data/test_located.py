"""Where images lie, packed."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainage.data.located import Located, LocatedFiles


@given(st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)))
def test_names_come_back(names):
    from pathlib import Path

    files = LocatedFiles(names, Path("folder"))
    assert list(files) == [Located(Path("folder") / name, name) for name in names]
    assert len(files) == len(names)
    with pytest.raises(IndexError):
        files[len(names)]


def test_a_name_that_is_no_text_can_be_opened(tmp_path):
    path = tmp_path / b"\xff.png".decode("utf-8", "surrogateescape")
    path.write_bytes(b"x")
    assert LocatedFiles([path.name], tmp_path)[0].open().read() == b"x"


def test_members_of_shards_are_read_in_place_and_survive_a_worker(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"..one..")
    (tmp_path / "b.tar").write_bytes(b"two")
    files = LocatedFiles(["x.png", "y.png"], tmp_path, ["a.tar", "b.tar"], [(2, 3), (0, 3)])
    files = pickle.loads(pickle.dumps(files))
    assert [file.open().read() for file in files] == [b"one", b"two"]
    assert [file.name for file in files] == ["a.tar/x.png", "b.tar/y.png"]
