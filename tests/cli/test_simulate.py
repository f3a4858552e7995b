from typer.testing import CliRunner

from brainage.cli.main import app


def test_simulate_writes_a_cohort_and_says_so(tmp_path):
    out = tmp_path / "cohort"
    result = CliRunner().invoke(app, ["simulate", str(out), "--subjects", "1", "--seed", "2"])
    assert result.exit_code == 0, result.output
    assert "1 simulated subject, seed 2" in result.stdout
    assert "simulated 1 of 1" in result.stderr
    assert (out / "sub-01" / "anat" / "sub-01_T1w.nii.gz").is_file()


def test_a_folder_with_other_content_is_refused(tmp_path):
    (tmp_path / "paper.docx").write_text("mine")
    result = CliRunner().invoke(app, ["simulate", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert (tmp_path / "paper.docx").read_text("utf-8") == "mine"


def test_no_subjects_is_a_usage_error(tmp_path):
    assert CliRunner().invoke(app, ["simulate", str(tmp_path / "x"), "--subjects", "0"]).exit_code == 2
