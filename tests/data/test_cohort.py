import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainage.data.cohort import find_scans, output_entities, scan_of
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


def test_scans_with_and_without_sessions(touch):
    root = touch(
        "sub-02/ses-b/anat/sub-02_ses-b_acq-mprage_run-1_T1w.nii.gz",
        "sub-01/anat/sub-01_T1w.nii",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-01/func/sub-01_task-rest_bold.nii.gz",
        "sub-01/anat/sub-01_T1w.json",
        "sub-01/anat/.partial-sub-01_T1w.nii.gz",
        "derivatives/x/sub-01/anat/sub-01_T1w.nii.gz",
    )
    scans, problems = find_scans(root)
    assert problems == []
    assert [(scan.participant_id, scan.session_id) for scan in scans] == [("sub-01", ""), ("sub-02", "ses-b")]
    assert list(scans[1].entities.items()) == [("sub", "02"), ("ses", "b"), ("acq", "mprage"), ("run", "1")]


def test_stripped_derivatives_are_scans_and_other_derivatives_are_not(touch):
    root = touch(
        "sub-1/ses-1/anat/sub-1_ses-1_space-MNI152_res-2_desc-brain_T1w.nii.gz",
        "sub-1/ses-1/anat/sub-1_ses-1_space-MNI152NLin2009aSym_res-2_desc-preproc_T1w.nii.gz",
    )
    scans, problems = find_scans(root)
    assert [scan.entities["desc"] for scan in scans] == ["brain"]
    assert problems == []


def test_one_file_twice_is_a_problem_and_the_compressed_one_is_used(touch):
    root = touch("sub-01/anat/sub-01_T1w.nii", "sub-01/anat/sub-01_T1w.nii.gz")
    scans, problems = find_scans(root)
    assert [scan.path.name for scan in scans] == ["sub-01_T1w.nii.gz"]
    assert [problem.path.name for problem in problems] == ["sub-01_T1w.nii"]
    assert "the same entities as sub-01_T1w.nii.gz" in problems[0].message


def test_scans_that_would_get_the_same_output_are_a_problem(touch):
    root = touch("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_space-MNI152_desc-brain_T1w.nii.gz")
    scans, problems = find_scans(root)
    assert len(scans) == len(problems) == 1


@pytest.mark.parametrize(
    "name",
    [
        "sub-01/anat/sub-0 1_T1w.nii.gz",
        "sub-01/anat/sub-..1_T1w.nii.gz",
        "sub-01/anat/sub-é_T1w.nii.gz",
        "sub-01/anat/sub-_T1w.nii.gz",
        "sub-01/anat/sub-01_ses-a-b_T1w.nii.gz",
        "sub-01/anat/T1w.nii.gz",
        "sub-01/anat/sub-02_T1w.nii.gz",
        "sub-01/ses-1/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_ses-1_T1w.nii.gz",
        "sub-0 1/anat/sub-01_T1w.nii.gz",
    ],
)
def test_odd_names_and_wrong_folders_cost_only_themselves(touch, name):
    root = touch(name, "sub-9/anat/sub-9_T1w.nii.gz")
    scans, problems = find_scans(root)
    assert [scan.participant_id for scan in scans] == ["sub-9"]
    assert len(problems) == 1
    message = problems[0].message
    assert message.startswith(name.rpartition("/")[2])
    assert str(root) not in message


def test_a_folder_without_scans(touch, tmp_path):
    with pytest.raises(InputError, match="no T1w scan"):
        find_scans(touch("sub-01/anat/sub-01_T2w.nii.gz"))
    with pytest.raises(InputError, match="no such folder"):
        find_scans(tmp_path / "absent")


def test_single_files():
    scan = scan_of("anywhere/sub-01_ses-2_T1w.nii.gz")
    assert (scan.participant_id, scan.session_id) == ("sub-01", "ses-2")
    scan = scan_of("anywhere/Müller Anna_1970.nii")
    assert (scan.participant_id, scan.session_id, scan.entities) == (
        "sub-MllerAnna1970",
        "",
        {"sub": "MllerAnna1970"},
    )
    assert scan_of("sub-01_brain.nii.gz").participant_id == "sub-01brain"
    with pytest.raises(InputError, match="BIDS suffix bold"):
        scan_of("sub-01_task-rest_bold.nii.gz")
    with pytest.raises(InputError, match="no letter or digit"):
        scan_of("___.nii.gz")


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_no_name_leads_out_of_the_output_folder(name):
    try:
        scan = scan_of(f"folder/{name}.nii.gz")
    except InputError:
        return
    for text in (scan.participant_id, scan.session_id, output_entities(scan.entities)):
        assert not set(text) & set("/\\. \n\t")
        assert text.isascii()


def test_output_names_keep_what_tells_scans_apart():
    entities = scan_of("sub-1_ses-2_acq-x_rec-y_run-03_space-MNI152_res-2_desc-brain_T1w.nii.gz").entities
    assert output_entities(entities) == "sub-1_ses-2_acq-x_rec-y_run-03"
    assert output_entities(entities, keep_space=True) == "sub-1_ses-2_acq-x_rec-y_run-03_space-MNI152_res-2"
