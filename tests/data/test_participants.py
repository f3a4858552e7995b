import json
import logging

import pytest

from brainage.data.participants import parse_participants, read_participants
from brainage.errors import InputError


@pytest.fixture
def people(tmp_path):
    def write(text: str, name: str = "participants.tsv"):
        path = tmp_path / name
        path.write_text(text.replace(" ", "\t" if name.endswith("tsv") else ","))
        return path

    return write


def test_known_columns_come_first_and_the_others_are_kept_as_numbers_or_text(people):
    table = read_participants(
        people("participant_id Age CDR group Gender\nsub-01 30 0.0 a F\n02 70 0.5 b m\nsub-03 50 n/a 1 x\n")
    )
    assert list(table) == ["participant_id", "session_id", "age", "sex", "site", "cdr", "group", "gender"]
    assert table["participant_id"].tolist() == ["sub-01", "sub-02", "sub-03"]
    assert table["sex"].tolist() == ["female", "male", ""]
    assert table["cdr"].tolist()[:2] == [0.0, 0.5]
    assert table["cdr"].isna().tolist() == [False, False, True]
    assert table["group"].tolist() == ["a", "b", "1"]


def test_assumptions_are_logged(people, caplog):
    logging.getLogger("brainage").propagate = True
    with caplog.at_level(logging.INFO, logger="brainage"):
        assert read_participants(people("participant_id age_months\nsub-01 360\n"))["age"].tolist() == [30]
    assert "months to years" in caplog.text


def test_a_column_called_age_wins_over_one_in_months(people):
    table, notes = parse_participants(people("participant_id age_months age\nsub-01 361 30\n"))
    assert table["age"].tolist() == [30]
    assert notes == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("participant_id age\nsub-01 30\nsub-02 361\n", "age 361 for sub-02; expected ages in years"),
        ("participant_id age\n../../etc 30\n", "no usable row"),
        ("participant_id age\nn/a 30\n", "no participant ids"),
        ("participant_id height\nsub-01 30\n", "no column age among participant_id, height"),
    ],
)
def test_refuses_with_one_sentence(people, text, said):
    with pytest.raises(InputError) as raised:
        read_participants(people(text))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("row", ["sub-01 40", "01 40"])
def test_rows_that_differ_cost_their_participant_the_age(people, row):
    table, notes = parse_participants(people(f"participant_id age\nsub-01 30\n{row}\nsub-02 50\n"))
    assert table["participant_id"].tolist() == ["sub-01", "sub-02"]
    assert table["age"].isna().tolist() == [True, False]
    assert notes == ["sub-01 stands in rows that differ, so the age counts as missing"]


def test_a_row_twice_counts_once(people):
    table, notes = parse_participants(people("participant_id age\nsub-01 30\nsub-01 30\n"))
    assert table["age"].tolist() == [30]
    assert notes == []


@pytest.mark.parametrize("name", ["../../etc", "a/b", "sub-..", "a\\b"])
def test_an_id_that_names_a_folder_elsewhere_costs_its_row(people, name):
    table, notes = parse_participants(people(f"participant_id age\n{name} 30\nsub-02 50\n"))
    assert table["participant_id"].tolist() == ["sub-02"]
    assert len(notes) == 1
    assert "left out" in notes[0]


def test_ages_with_units_and_ages_that_are_none(people):
    texts = ["42", "P42Y", "P42Y6M", "P510M", "042Y", "504_months", "89+", ">89", "old", "n/a", "P", "1.2.3y"]
    lines = [f"s{index} {text}" for index, text in enumerate(texts)]
    path = people("participant_id age\n" + "\n".join(lines) + "\n")
    path.write_text(path.read_text("utf-8").replace("_", " ").replace("participant id", "participant_id"))
    table, notes = parse_participants(path)
    ages = table["age"]
    assert ages[:6].round(6).tolist() == [42, 42, 42.5, 42.5, 42, 42]
    assert ages[6:].isna().all()
    assert notes[0] == "5 ages with a unit of their own, such as 'P42Y'"
    assert notes[1] == "top-coded ages are no ages and count as missing: sub-s6 '89+', sub-s7 '>89'"
    assert (
        notes[2]
        == "ages that are no number and count as missing: sub-s8 'old', sub-s10 'P', sub-s11 '1.2.3y'"
    )


def test_a_unit_of_its_own_wins_over_the_column_s(people):
    table, _ = parse_participants(people("participant_id age_months\na 504\nb P42Y\n"))
    assert table["age"].tolist() == [42, 42]


def test_ages_by_session(people, tmp_path):
    path = people("participant_id age sex\nsub-01 30 F\nsub-02 50 M\nsub-03 60 M\n")
    for name, text in {
        "sub-01/sub-01_sessions.tsv": "session_id age\nses-a 30\nses-b 35.5\n",
        "sub-03/sub-03_sessions.tsv": "session_id age\nses-a 61\nses-a 62\n",
        "sub-02/sub-02_sessions.tsv": "visit\nfirst\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace(" ", "\t"))
    (tmp_path / "sub-02" / "ses-x").mkdir()
    table, notes = parse_participants(path)
    rows = [tuple(row) for row in table[["participant_id", "session_id", "age", "sex"]].values[:4]]
    assert rows == [
        ("sub-01", "ses-a", 30, "female"),
        ("sub-01", "ses-b", 35.5, "female"),
        ("sub-02", "", 50, "male"),
        ("sub-02", "ses-x", 50, "male"),
    ]
    assert table["age"].isna().tolist() == [False] * 4 + [True]
    assert "sub-03 ses-a has two rows" in " ".join(notes)
    assert "sub-02_sessions.tsv: found no column session_id" in " ".join(notes)


def test_a_sidecar_that_is_no_json_is_refused(people, tmp_path):
    path = people("participant_id age\nsub-01 30\n")
    (tmp_path / "participants.json").write_text("{")
    with pytest.raises(InputError, match=r"participants\.json: found no JSON object"):
        read_participants(path)


def test_a_sidecar_may_say_years(people, tmp_path):
    path = people("participant_id age\nsub-01 30\n")
    (tmp_path / "participants.json").write_text(json.dumps({"age": {"Units": "years"}}))
    assert read_participants(path)["age"].tolist() == [30]
