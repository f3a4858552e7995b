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


def test_the_page_loads_nothing_and_holds_every_figure(files):
    page = files / "page.html"
    rows = [f"sub-{i:02d},,p{i},{20 + 2 * i + i % 3},ok,,{10 + 2 * i},{32 + 2 * i},0.9" for i in range(1, 31)]
    header = "participant_id,session_id,path,predicted_age,status,message,interval_low,interval_high"
    (files / "ages.csv").write_text("\n".join([header + ",interval_level", *rows]))
    people = [f"sub-{i:02d}\t{20 + 2 * i}\t{'FM'[i % 2]}\t{'ab'[i % 2]}" for i in range(1, 31)]
    (files / "participants.tsv").write_text("\n".join(["participant_id\tage\tsex\tsite", *people]))
    result = run(
        files / "ages.csv", "--participants", files / "participants.tsv", "--html", page, "--resamples", 200
    )
    assert result.exit_code == 0, result.output
    text = page.read_text("utf-8")
    assert "100.0% of the intervals of 90% hold the age" in result.stdout
    for said in (
        "Mean absolute error",
        "Coverage of the intervals",
        "TRIPOD+AI",
        "Corrected gap",
        "by the other",
    ):
        assert said in text
    assert "://" not in text
    assert text.count("data:image/png") == 3


def test_repeated_scans_are_compared_with_each_other(files):
    rows = [f"sub-{i:02d},ses-{k},p{i}{k},{30 + 5 * i + k},ok," for i in range(1, 6) for k in (1, 2)]
    (files / "ages.csv").write_text(
        "\n".join(["participant_id,session_id,path,predicted_age,status,message", *rows])
    )
    people = [f"sub-{i:02d}\t{30 + 5 * i}" for i in range(1, 6)]
    (files / "participants.tsv").write_text("\n".join(["participant_id\tage", *people]))
    result = run(files / "ages.csv", "--participants", files / "participants.tsv", "--html", files / "p.html")
    assert "5 people with two scans: ICC(2,1)" in result.stdout
    assert "Bland-Altman" in (files / "p.html").read_text("utf-8")


def test_compares_two_files(files):
    (files / "b.csv").write_text(
        "participant_id,session_id,path,predicted_age,status,message\n"
        "sub-01,,a,30,ok,\nsub-02,,b,70,ok,\nsub-03,,c,45,ok,\nsub-04,,d,20,ok,\n"
    )
    out = files / "out.json"
    result = run(
        "--compare", files / "ages.csv", files / "b.csv", "--participants", files / "participants.tsv",
        "--json", out, "--html", files / "c.html",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    written = json.loads(out.read_text("utf-8"))
    assert (written["n_scans"], written["only_a"], written["only_b"]) == (3, 0, 1)
    assert written["figures"]["mae"]["difference"] == pytest.approx(3.0)
    assert "only in B" in (files / "c.html").read_text("utf-8")


def test_one_file_or_two_but_not_both(files):
    assert run("--participants", files / "participants.tsv").exit_code == 2
    both = run(files / "ages.csv", "--compare", files / "ages.csv", files / "ages.csv")
    assert both.exit_code == 2


def test_a_training_runs_own_table_needs_no_other(files):
    table = files / "cv_predictions.csv"
    table.write_text("participant_id,session_id,age,fold,ermoe_ba\nsub-01,,30,0,33\nsub-02,,70,1,65\n")
    result = run(table, "--column", "ermoe_ba")
    assert result.exit_code == 0, result.output
    assert "2 scans of 2 subjects" in result.stdout
    missing = run(table, "--column", "other")
    assert "no column other" in missing.stderr
