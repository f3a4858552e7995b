"""Which scans a call of ``predict`` stands for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from brainage.config import PreprocessRecipe, QcRecipe, parse_recipe
from brainage.data.cohort import scan_of
from brainage.errors import InputError
from brainage.models.weights import TrainedModel
from brainage.predict import batch
from brainage.predict.batch import Request, find_requests, predict_request, settings_for


def test_files_of_equal_names_get_ids_of_their_own(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "T1.nii.gz" for folder in ("a", "b", "c")]
    for path in paths:
        path.parent.mkdir()
        path.touch()
    requests = find_requests([*paths, tmp_path / "sub-7_run-1_T1w.nii", tmp_path / "sub-7_run-2_T1w.nii"])
    assert [request.path for request in requests[:3]] == paths
    scans = [request.scan for request in requests]
    assert [scan.participant_id for scan in scans] == ["sub-T1", "sub-T1x2", "sub-T1x3", "sub-7", "sub-7"]
    assert [scan.entities["sub"] for scan in scans] == ["T1", "T1x2", "T1x3", "7", "7"]


def test_an_empty_folder_is_one_failed_request(tmp_path: Path) -> None:
    (request,) = find_requests([tmp_path])
    assert request.scan is None
    assert "T1w" in request.problem


def test_an_unusable_name_is_a_failed_request(tmp_path: Path) -> None:
    (request,) = find_requests([tmp_path / "sub-1_bold.nii.gz"])
    assert request.scan is None
    assert request.problem.startswith("sub-1_bold.nii.gz: found")


def test_scans_are_judged_by_the_limits_of_today_unless_a_recipe_says_otherwise(
    tiny_model: TrainedModel, tmp_path: Path, monkeypatch
) -> None:
    frozen = parse_recipe({"bias_correction": False, "qc": {"cjv": None}}, PreprocessRecipe)
    recipe = tiny_model.recipe.model_copy(update={"preprocess": frozen})
    trained = replace(tiny_model, recipe=recipe)
    assert not settings_for(trained).bias_correction
    assert settings_for(trained).qc == QcRecipe()
    asked = []

    def preprocess_scan(scan, out_dir, settings):
        asked.append(settings)
        raise InputError(scan.path, "nothing", "something", "stop here")

    monkeypatch.setattr(batch, "preprocess_scan", preprocess_scan)
    request = Request(tmp_path / "sub-1_T1w.nii", scan_of(tmp_path / "sub-1_T1w.nii"))
    predict_request(request, trained, tmp_path, None)
    predict_request(request, trained, tmp_path, None, frozen)
    assert asked == [settings_for(trained), frozen]


def test_a_list_s_ages_go_with_its_scans(tmp_path: Path) -> None:
    for name in ("a.nii", "b.nii", "c.nii"):
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text("path,id,age\na.nii,01,P42Y\nb.nii,02,89+\n")
    requests = find_requests([tmp_path / "list.csv", tmp_path / "c.nii"])
    assert [request.age for request in requests] == [42, None, None]
