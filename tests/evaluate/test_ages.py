import json

import pandas as pd
import pytest

from brainage.errors import InputError
from brainage.evaluate.ages import is_simulated, join_ages


@pytest.fixture
def cohort(tmp_path):
    """Write the two files; returns their paths."""

    def write(ages: str, participants: str):
        (tmp_path / "ages.csv").write_text(ages)
        (tmp_path / "participants.tsv").write_text(participants.replace(" ", "\t"))
        return tmp_path / "ages.csv", tmp_path / "participants.tsv"

    return write


HEADER = "participant_id,session_id,path,predicted_age,status,message\n"
TWO = HEADER + "sub-01,,a.nii.gz,31.5,ok,\nsub-02,,b.nii.gz,64,warning,old\n"


def test_joins_by_id_and_keeps_warnings(cohort):
    joined = join_ages(*cohort(TWO, "participant_id age sex\nsub-02 70 M\nsub-01 30 F\n"))
    assert joined.table["age"].tolist() == [30, 70]
    assert joined.table["sex"].tolist() == ["female", "male"]
    assert joined.table["status"].tolist() == ["ok", "warning"]
    assert (joined.failed, joined.without_age, joined.not_predicted, joined.notes) == (0, 0, 0, ())


def test_counts_everyone_left_out(cohort):
    ages = TWO + "sub-03,,c.nii.gz,,failed,4-D image\nsub-04,,d.nii.gz,50,ok,\nsub-05,,e.nii.gz,50,ok,\n"
    people = "participant_id age\nsub-01 30\nsub-02 70\nsub-03 40\nsub-04 n/a\nsub-06 20\n"
    joined = join_ages(*cohort(ages, people))
    assert len(joined.table) == 2
    assert joined.failed == 1  # sub-03
    assert joined.without_age == 2  # sub-04 has n/a, sub-05 is not listed
    assert joined.not_predicted == 1  # sub-06


def test_a_row_without_a_number_counts_as_failed_whatever_its_status(cohort):
    joined = join_ages(
        *cohort(TWO + "sub-03,,c.nii.gz,,ok,\n", "participant_id age\nsub-01 30\nsub-02 70\nsub-03 40\n")
    )
    assert joined.failed == 1


def test_ids_match_with_and_without_their_prefix_and_keep_leading_zeros(cohort):
    joined = join_ages(*cohort(TWO, "participant_id age\n01 30\n02 70\n1 99\n"))
    assert joined.table["age"].tolist() == [30, 70]


def test_sessions_have_their_own_ages_where_the_file_names_them(cohort):
    ages = HEADER + "sub-01,ses-1,a.nii.gz,31,ok,\nsub-01,ses-2,b.nii.gz,36,ok,\n"
    people = "participant_id session_id age\nsub-01 ses-2 35\nsub-01 1 30\n"
    assert join_ages(*cohort(ages, people)).table["age"].tolist() == [30, 35]


def test_one_age_for_all_sessions_is_said(cohort):
    ages = HEADER + "sub-01,ses-1,a.nii.gz,31,ok,\nsub-01,ses-2,b.nii.gz,36,ok,\n"
    joined = join_ages(*cohort(ages, "participant_id age\nsub-01 30\n"))
    assert joined.table["age"].tolist() == [30, 30]
    assert "one age for all sessions" in joined.notes[0]


def test_months_are_converted_where_the_file_says_months(cohort):
    joined = join_ages(*cohort(TWO, "participant_id age_months\nsub-01 360\nsub-02 840\n"))
    assert joined.table["age"].tolist() == [30, 70]
    assert joined.notes == ("ages converted from months to years",)


def test_months_are_converted_where_the_sidecar_says_months(cohort, tmp_path):
    files = cohort(TWO, "participant_id age\nsub-01 360\nsub-02 840\n")
    (tmp_path / "participants.json").write_text(json.dumps({"age": {"Units": "months"}}))
    assert join_ages(*files).table["age"].tolist() == [30, 70]


def test_unannounced_months_are_refused(cohort):
    with pytest.raises(InputError, match=r"age 360 for sub-01; expected ages in years.*age_months"):
        join_ages(*cohort(TWO, "participant_id age\nsub-01 360\nsub-02 840\n"))


def test_a_censored_age_is_missing_and_said(cohort):
    joined = join_ages(*cohort(TWO, "participant_id age\nsub-01 30\nsub-02 89+\n"))
    assert joined.without_age == 1
    assert "89+" in joined.notes[0]


@pytest.mark.parametrize(
    ("ages", "people", "said"),
    [
        (TWO, "participant_id group\nsub-01 a\n", "no column age"),
        (TWO, "subject age\nsub-01 30\n", "no column participant_id"),
        (TWO, "participant_id age\nsub-98 30\nsub-99 70\n", "none has both a prediction and an age"),
        (TWO, "participant_id age\nsub-01 -4\n", "age -4"),
        (TWO, "participant_id age\n", "no rows"),
        (
            TWO + "sub-01,,a.nii.gz,32,ok,\n",
            "participant_id age\nsub-01 30\n",
            "the same scan of sub-01 twice",
        ),
        (HEADER + "sub-01,,a.nii.gz,old,ok,\n", "participant_id age\nsub-01 30\n", "predicted_age 'old'"),
        ("participant_id,age\nsub-01,3\n", "participant_id age\nsub-01 30\n", "no column predicted_age"),
        ("", "participant_id age\nsub-01 30\n", "no readable table"),
    ],
)
def test_refuses_with_one_sentence(cohort, ages, people, said):
    with pytest.raises(InputError) as raised:
        join_ages(*cohort(ages, people))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(cohort, tmp_path):
    ages, _ = cohort(TWO, "")
    with pytest.raises(InputError, match=r"nobody\.tsv: found no such file"):
        join_ages(ages, tmp_path / "nobody.tsv")


def test_simulated_data_is_recognised_by_its_description(tmp_path):
    assert not is_simulated(tmp_path)
    (tmp_path / "dataset_description.json").write_text('{"Name": "Simulated ageing cohort"}')
    assert is_simulated(tmp_path)


def test_reads_a_table_saved_by_a_spreadsheet(tmp_path, cohort):
    ages, _ = cohort(TWO, "")
    people = tmp_path / "people.csv"
    pd.DataFrame({"Participant_ID": ["sub-01"], "Age": [30]}).to_csv(
        people, index=False, encoding="utf-8-sig"
    )
    assert join_ages(ages, people).table["age"].tolist() == [30]


def test_what_made_the_predictions_is_kept_and_a_mixture_is_told(cohort):
    header = HEADER.strip() + ",model,model_fingerprint\n"
    rows = "sub-01,,a.nii.gz,31.5,ok,,m,f1\nsub-02,,b.nii.gz,64,ok,,m,{}\nsub-03,,c.nii.gz,,failed,,,\n"
    people = "participant_id age\nsub-01 30\nsub-02 70\nsub-03 20\n"
    one = join_ages(*cohort(header + rows.format("f1"), people))
    assert one.made_by == {"model": ("m",), "model_fingerprint": ("f1",)}
    assert one.notes == ()
    two = join_ages(*cohort(header + rows.format("f2"), people))
    assert two.notes == ("the file mixes predictions of 2 models",)
