import json

import pytest
from typer.testing import CliRunner

from brainage.cli.main import app


@pytest.fixture
def files(tmp_path):
    (tmp_path / "ages.csv").write_text(
        "participant_id,session_id,path,predicted_age,status,message\n"
        "sub-01,,a,31,ok,\nsub-02,,b,64,ok,\nsub-03,,c,47,warning,blurred\nsub-04,,d,,failed,empty image\n"
    )
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\tsex\nsub-01\t30\tF\nsub-02\t70\tM\nsub-03\t45\tF\nsub-04\t20\tM\n"
    )
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in ("evaluate", *arguments)])


def test_prints_the_table_and_writes_json_and_plot(files):
    result = run(
        files / "ages.csv",
        "--participants",
        files / "participants.tsv",
        "--json",
        files / "out" / "evaluation.json",
        "--plot",
        files / "scatter.png",
    )
    assert result.exit_code == 0, result.output
    assert "3 scans of 3 subjects" in result.stdout
    assert "left out, no prediction: 1" in result.stdout
    written = json.loads((files / "out" / "evaluation.json").read_text("utf-8"))
    assert written["mae"] == pytest.approx(3.0)  # |+1|, |-6|, |+2|
    assert written["simulated"] is False
    assert (files / "scatter.png").read_bytes().startswith(b"\x89PNG")


def test_a_simulated_cohort_is_called_so(files):
    (files / "dataset_description.json").write_text('{"Name": "brainage simulated cohort"}')
    result = run(files / "ages.csv", "--participants", files / "participants.tsv")
    assert "simulated cohort" in result.stdout


def test_a_bad_file_is_one_sentence_on_stderr(files):
    result = run(files / "ages.csv", "--participants", files / "none.tsv")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: none.tsv: found no such file")
    assert result.stderr.count("\n") == 1
