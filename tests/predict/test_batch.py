"""Which scans a call of ``predict`` stands for."""

from __future__ import annotations

from pathlib import Path

from brainage.predict.batch import find_requests


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
