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
        ("participant_id age\nsub-01 30\nsub-01 30\n", "sub-01 in two rows"),
        ("participant_id age\nsub-01 30\n01 40\n", "sub-01 in two rows"),
        ("participant_id session_id age\nsub-01 1 30\nsub-01 ses-1 40\n", "sub-01 ses-1 in two rows"),
        ("participant_id age\nsub-01 30\nsub-02 361\n", "age 361 for sub-02; expected ages in years"),
        ("participant_id age\n../../etc 30\n", "'sub-../../etc'"),
        ("participant_id age\na/b 30\n", "'sub-a/b'"),
    ],
)
def test_refuses_with_one_sentence(people, text, said):
    with pytest.raises(InputError) as raised:
        read_participants(people(text))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_sidecar_that_is_no_json_is_refused(people, tmp_path):
    path = people("participant_id age\nsub-01 30\n")
    (tmp_path / "participants.json").write_text("{")
    with pytest.raises(InputError, match=r"participants\.json: found no JSON object"):
        read_participants(path)


def test_a_sidecar_may_say_years(people, tmp_path):
    path = people("participant_id age\nsub-01 30\n")
    (tmp_path / "participants.json").write_text(json.dumps({"age": {"Units": "years"}}))
    assert read_participants(path)["age"].tolist() == [30]
