"""What inputs stand for: BIDS, other folders, tables, files, DICOM."""

from __future__ import annotations

import pytest

from brainage.data.listing import list_scans
from brainage.data.listing_people import call_roll
from brainage.data.listing_table import lists_scans
from brainage.errors import InputError


@pytest.fixture
def touch(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def ids(listing):
    return [scan.participant_id for scan in listing.scans]


def test_a_bids_folder(touch):
    root = touch("sub-2/ses-1/anat/sub-2_ses-1_T1w.nii.gz", "sub-1/anat/sub-1_T1w.mgz", "stray.nii")
    listing = list_scans([root])
    assert listing.bids
    assert ids(listing) == ["sub-1", "sub-2"]


def test_a_folder_of_files(touch):
    root = touch(
        "b/T1.nii", "a/T1.nii.gz", "c.mgz", "d.hdr", "d.img", ".x.nii", "y_T2w.nii", "e_desc-x_T1w.nii"
    )
    listing = list_scans([root])
    assert not listing.bids
    assert ids(listing) == ["sub-c", "sub-d", "sub-T1", "sub-T1x2"]
    assert [scan.path.relative_to(root).as_posix() for scan in listing.scans][2:] == [
        "a/T1.nii.gz",
        "b/T1.nii",
    ]


def test_files_and_folders_together_and_a_useless_input_costs_only_itself(touch, tmp_path):
    root = touch("x/sub-1/anat/sub-1_T1w.nii", "y/T1.nii", "empty/z.txt")
    listing = list_scans([root / "x", root / "y" / "T1.nii", root / "empty", root / "absent"])
    assert ids(listing) == ["sub-1", "sub-T1"]
    assert [problem.path.name for problem in listing.problems] == ["empty", "absent"]
    for name in ("empty", "absent"):
        with pytest.raises(InputError):
            list_scans([root / name])


def test_the_image_of_a_pair_stands_for_its_header(touch):
    root = touch("d.hdr", "d.img")
    assert [scan.path.name for scan in list_scans([root / "d.img"]).scans] == ["d.hdr"]


def test_a_table_of_scans(touch, tmp_path):
    touch("a.nii", "deep/sub-9_ses-2_run-1_T1w.nii.gz")
    table = tmp_path / "scans.csv"
    table.write_text(
        "path,ID,session,Age,sex,site\n"
        "a.nii,P_01,1,42,F,X\n"
        "deep/sub-9_ses-2_run-1_T1w.nii.gz,,,P70Y,M,Y\n"
        "a.nii,../../etc,1,50,F,X\n"
        "a.nii,P01,1,43,F,X\n"
        ",P02,,44,F,X\n"
    )
    listing = list_scans([table])
    assert [(scan.participant_id, scan.session_id) for scan in listing.scans] == [
        ("sub-P01", "ses-1"),
        ("sub-9", "ses-2"),
    ]
    assert dict(listing.scans[1].entities) == {"sub": "9", "ses": "2", "run": "1"}
    messages = [problem.message for problem in listing.problems]
    assert "the id '../../etc'" in messages[0]
    assert messages[1].startswith("scans.csv: found no path in row 5")
    assert "the id sub-P01_ses-1 of another row" in messages[2]
    people = listing.people.set_index("participant_id")
    assert people["age"].dropna().to_dict() == {"sub-9": 70}
    assert "rows that differ" in " ".join(listing.notes)


def test_a_table_without_paths(touch, tmp_path):
    (tmp_path / "x.tsv").write_text("participant_id\tage\nsub-1\t3\n")
    with pytest.raises(InputError, match="no column path among participant_id, age"):
        list_scans([tmp_path / "x.tsv"])


def test_a_list_is_told_from_a_table_of_ages(tmp_path):
    for name, header, expected in (
        ("list.csv", "path,id,age", True),
        ("german.csv", "Path;ID;Age", True),
        ("list.tsv", "t1w\tid", True),
        ("ages.csv", "participant_id,path,predicted_age", False),
        ("participants.tsv", "participant_id\tage", False),
        ("a.nii", "path,id", False),
    ):
        (tmp_path / name).write_text(f"{header}\na,b,c\n" if "," in header else f"{header}\na\n")
        assert lists_scans(tmp_path / name) == expected
    assert not lists_scans(tmp_path / "absent.csv")


def test_a_list_remarks_on_ages_that_count_as_missing(touch, tmp_path):
    touch("a.nii", "b.nii")
    (tmp_path / "scans.csv").write_text("path,id,age\na.nii,01,89+\nb.nii,02,40\n")
    remarks = call_roll(list_scans([tmp_path / "scans.csv"])).remarks
    assert list(remarks) == ["sub-01"]
    assert "top-coded" in remarks["sub-01"]
    assert "'89+'" in remarks["sub-01"]
