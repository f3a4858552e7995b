"""The page of one scan: what it says, in which order, and what it says instead where something is missing."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imsave
from typer.testing import CliRunner

from brainage.cli.main import app
from brainage.predict.interval_scope import unknown_scope
from brainage.predict.reference import fit_reference
from brainage.preprocess.load import read_scan
from brainage.report.html import write_pages
from brainage.report.scan_files import ScanImages
from brainage.report.scan_page import split_reasons
from brainage.report.viewer import SPACING, viewer_data

_SPEC = importlib.util.spec_from_file_location("page_reader", Path(__file__).with_name("test_html.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
_READER = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_READER)
Page = _READER.Page
_SERIES_SPEC = importlib.util.spec_from_file_location(
    "dicom_series", Path(__file__).parent.parent / "data" / "dicom_series.py"
)
assert _SERIES_SPEC is not None
assert _SERIES_SPEC.loader is not None
_SERIES = importlib.util.module_from_spec(_SERIES_SPEC)
_SERIES_SPEC.loader.exec_module(_SERIES)

SCOPE = "The interval holds for one scanner: others were off by 7.0 years."
EVIL = "<script>alert(1)</script>"
HEADER = (
    "participant_id,session_id,path,predicted_age,status,message,interval_low,interval_high,interval_level,"
    "interval_scope,registration_ncc,unusual,model,model_fingerprint\n"
)


def reference(mean: float) -> dict:
    rng = np.random.default_rng(0)
    return fit_reference(rng.uniform(20, 90, 200), rng.normal(mean, 0.5, 200)).to_json()


def write_maps(maps: Path, name: str, affine: np.ndarray, shape: tuple[int, int, int]) -> None:
    """Maps of a brain in the middle of the scan: +0.3 years on its left, -0.1 on its right."""
    prefix = maps / name / name
    prefix.parent.mkdir(parents=True)
    image = nib.Nifti1Image(np.zeros(shape), affine)
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    inside = np.linalg.norm(world, axis=-1) < 55
    left = world[..., 0] < 0
    for data, end in (
        (np.where(inside, np.where(left, 0.3, -0.1), np.nan), "desc-contribution_map"),
        (np.where(inside, np.where(left, 1, 2), 0), "desc-expert_map"),
        (np.where(inside, 0.8, np.nan), "desc-alignment_map"),
        (np.where(inside, np.where(left, 1, 2), 0), "desc-regions_dseg"),
        (inside, "desc-brain_mask"),
    ):
        nib.save(nib.Nifti1Image(data.astype(np.float32), image.affine), f"{prefix}_space-T1w_{end}.nii.gz")
    Path(f"{prefix}_regions.tsv").write_text(
        "region\themisphere\tgroup\tcontribution_years\tcoverage\tshare_frontal\tshare_free_1\n"
        f"insula L\tL\tlimbic\t2.5\t1\t0.2\t0.8\ninsula R\tR\tlimbic\t-0.5\t0.9\t0.7\t0.3\n"
        f"{EVIL}\tbilateral\t\t0\tn/a\tn/a\tn/a\n"
    )
    rows = [("insula L", "L", 0.0), ("insula R", "R", -0.5), (EVIL, "bilateral", 0.0)]
    facts = {
        "predicted_age": 48.0, "baseline": 46.0, "experts": ["frontal", "free 1"], "regional_experts": True,
        "model": {
            "name": "tiny", "num_subjects": 200, "age_range": [20.0, 90.0], "unusual_limit": 1.25,
            "age_bias": {"slope": 0.9, "intercept": 5.0}, "cross_validated": {"subjects": 200, "mae": 6.1},
        },
        "gap_reference": reference(0.0),
        "regions": [{
                "region": n, "hemisphere": h, "healthy": reference(mean), "group": "limbic",
                "by_itself": {"age": 61.4, "error": 11.6, "healthy": reference(50.0)},
            }
            for n, h, mean in rows
        ],
        "native_to_mni": np.eye(4).tolist(),
    }  # fmt: skip
    Path(f"{prefix}_regions.json").write_text(json.dumps(facts))
    imsave(f"{prefix}_mosaic.png", np.zeros((8, 8)), vmin=0, vmax=1, format="png")


def write_files(tmp_path: Path) -> Path:
    """Scans of three sessions and a failed one, with their maps and ages."""
    affine = np.diag([-3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = 90, -95, -80
    shape = (60, 66, 56)
    scan = np.random.default_rng(0).uniform(0, 800, shape).astype(np.float32)
    for name in ("sub-1_ses-1", "sub-1_ses-2", "sub-2"):
        nib.save(nib.Nifti1Image(scan, affine), tmp_path / f"{name}_T1w.nii.gz")
        write_maps(tmp_path / "maps", name, affine, shape)
    (tmp_path / "ages.csv").write_text(
        HEADER + f"sub-1,ses-1,{tmp_path}/sub-1_ses-1_T1w.nii.gz,48,ok,,38,58,0.9,{SCOPE},0.91,1.2,tiny,ab\n"
        f"sub-1,ses-2,{tmp_path}/sub-1_ses-2_T1w.nii.gz,51.5,warning,"
        '"unlike (distance 2; 95 % below 1); dark",41,61,0.9,'
        f"{SCOPE},0.9,1.21,tiny,ab\n"
        f"sub-2,,{tmp_path}/sub-2_T1w.nii.gz,60,ok,,50,70,0.9,,0.9,1.2,tiny,ab\n"
        f"sub-{EVIL},,{tmp_path}/bad{EVIL[:8]}.nii.gz,,failed,no volume in {EVIL},,,,,,,,\n"
    )
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tsession_id\tage\nsub-1\tses-1\t45\nsub-1\tses-2\t47\nsub-2\tn/a\t40\n"
    )
    return tmp_path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return write_files(tmp_path)


def pages(files: Path, **options: object) -> dict[str, str]:
    written = write_pages(files / "out", files / "ages.csv", maps=files / "maps", **options)  # type: ignore[arg-type]
    return {path.stem: path.read_text(encoding="utf-8") for path in written}


def test_every_scan_person_and_cohort_gets_a_page(files: Path) -> None:
    written = pages(files, participants=files / "participants.tsv")
    names = ["sub-1_ses-1", "sub-1_ses-2", "sub-2", "sub--script-alert-1-script", "sub-1_sessions", "index"]
    assert list(written) == names
    links = [link["href"] for link in Page(written["index"]).all("a")]
    assert links == ["#main", *(f"{names[place]}.html" for place in (3, 1, 0, 2))]  # flagged ones first


def test_the_order_of_what_is_said(files: Path) -> None:
    words = Page(pages(files, participants=files / "participants.tsv")["sub-1_ses-2"]).words
    order = [
        "Research use only.", "51.5", "41.0 to 61.0", SCOPE, "Warning: this number deserves less trust.",
        "unlike (distance 2; 95 % below 1)", "dark", "Chronological age 47.0", "Gap +4.5", "Corrected gap",
        "Among the healthy", "on the training scanner",
        "not where disease is", "Contributions by region", "How old each region looks by itself", "61 ± 12",
        "> 99 %", "How to read this", "Quality of the scan", "Distance from the training scans 1.21 (95 %",
        "The model", "What this is",
        "Provenance", "Research use only.",
    ]  # fmt: skip
    at = 0
    for text in order:
        found = words.find(text, at)
        assert found >= 0, text
        at = found + len(text)


def test_gaps_and_percentiles_by_hand(files: Path) -> None:
    words = Page(pages(files, participants=files / "participants.tsv")["sub-1_ses-1"]).words
    # The line gives everyone of 45 years 0.9 * 45 + 5 - 45 = 0.5 years; the gap is 48 - 45 = 3.
    assert "Corrected gap +2.5 years: the gap minus what the model's known bias gives everyone" in words
    assert "(+0.5 years)" in words
    assert "larger than that of more than 99 % of healthy people" in words  # their gaps spread by 0.5 years
    assert "insula left +2.50" in words
    assert "> 99 % free 1 (80 %) 100 %" in words
    assert "the constant of 46.0 years, 48.0 years" in words


def test_no_age_stands_without_what_another_scanner_does_to_it(files: Path) -> None:
    written = pages(files, participants=files / "participants.tsv")
    for name, page in written.items():
        words = Page(page).words
        # A table of ages from an earlier version has no sentence of its own.
        said = [SCOPE in words, unknown_scope() in words]
        failed, second = name.startswith("sub--"), name == "sub-2"
        assert said == ([False, False] if failed else [False, True] if second else [True, name == "index"])
    assert "The chronological age lies outside the interval" not in Page(written["sub-1_ses-1"]).words
    assert "The chronological age lies outside the interval" in Page(written["sub-2"]).words
    assert "+20.0 outside" in Page(written["index"]).words


def test_many_unusual_regions_point_to_the_scanner(files: Path) -> None:
    words = Page(pages(files)["sub-2"]).words
    # All three regions look 61 years old where healthy people of 60 look 50 +- 0.5.
    assert (
        "About 1 of 3 outside the range are to be expected in anyone; here it is 3. So many at once" in words
    )


def test_without_a_true_age_there_is_no_gap(files: Path) -> None:
    words = Page(pages(files)["sub-1_ses-1"]).words
    assert "Corrected gap" not in words
    assert "true age was not given" in words
    assert "Healthy, 48 y" in words  # at the predicted age


def test_a_failed_scan_has_no_age_and_says_why(files: Path) -> None:
    text = pages(files)["sub--script-alert-1-script"]
    page = Page(text)
    assert "No age: this scan could not be used." in page.words
    assert f"no volume in {EVIL}" in page.words
    assert "<canvas" not in text
    assert "years</p>" not in text


def test_scripts_in_names_stay_text(files: Path) -> None:
    for name, text in pages(files, participants=files / "participants.tsv", title=EVIL).items():
        assert "<script>alert" not in text, name
        assert str(files) not in text, name
    config = Page(pages(files)["sub-2"])
    assert EVIL in config.words


def test_sessions_share_a_page_with_their_trend(files: Path) -> None:
    text = pages(files, participants=files / "participants.tsv")["sub-1_sessions"]
    words = Page(text).words
    assert "changed by +3.5 years in 2.0 years" in words
    assert "within that uncertainty" in words
    assert "ses-2: this number deserves less trust" in words.replace(" :", ":")
    assert 'class="trend"' in text
    assert words.index("ses-1 48.0 45.0 +3.0") < words.index("ses-2 51.5 47.0 +4.5")


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda f: (f / "sub-2_T1w.nii.gz").unlink(), "sub-2_T1w.nii.gz: found no such file"),
        (
            lambda f: nib.save(
                nib.Nifti1Image(np.ones((60, 66, 56), np.float32), np.diag([3.0, 3, 3, 1])),
                f / "sub-2_T1w.nii.gz",
            ),
            "found a map on another grid than sub-2_T1w.nii.gz",
        ),
        (
            lambda f: (f / "maps/sub-2/sub-2_regions.json").write_text('{"regions": []}'),
            "found no transform to MNI space",
        ),
        (
            lambda f: (f / "maps/sub-2/sub-2_space-T1w_desc-expert_map.nii.gz").write_bytes(b"x"),
            "found no readable NIfTI file",
        ),
    ],
)
def test_what_is_missing_is_said_and_the_rest_is_there(files: Path, break_it, sentence: str) -> None:
    break_it(files)
    words = Page(pages(files)["sub-2"]).words
    assert f"Not shown: {sentence}" in words or sentence in words
    assert "Contributions by region" in words
    assert "60.0 years" in words


def test_a_model_without_regional_experts_is_named(files: Path) -> None:
    path = files / "maps/sub-2/sub-2_regions.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"regional_experts": False}))
    assert "This model has no experts tied to regions" in Page(pages(files)["sub-2"]).words


def test_the_page_is_small_and_needs_nothing_else(files: Path) -> None:
    text = pages(files)["sub-2"]
    assert len(text) < 6e6
    page = Page(text)
    assert not any("src" in script for script in page.all("script"))
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert "default-src 'none'" in text


def test_the_viewer_keeps_sides_and_values(files: Path, tmp_path: Path) -> None:
    data = viewer_data(ScanImages(files / "maps/sub-2/sub-2", files / "sub-2_T1w.nii.gz"))
    volumes = {
        name: nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))
        for name, text in data.volumes.items()
    }
    assert set(volumes) == {"scan", "contribution", "expert", "regions"}
    for image in volumes.values():
        assert np.allclose(image.header.get_zooms(), SPACING)
    years = volumes["contribution"].get_fdata()
    x = nib.affines.apply_affine(volumes["contribution"].affine, np.argwhere(years > 0.2))[:, 0]
    assert (x < 1).all()
    assert np.median(years[years > 0]) == pytest.approx(0.3, abs=0.001)
    assert np.median(years[years < 0]) == pytest.approx(-0.1, abs=0.001)
    np.testing.assert_array_equal(volumes["expert"].get_fdata()[years > 0.2], 1)
    assert data.limit == pytest.approx(0.3, abs=0.001)


def test_clauses_in_brackets_stay_together() -> None:
    assert split_reasons("a (b; c); d") == ["a (b; c)", "d"]
    assert split_reasons("") == []


def test_what_an_error_expected_and_its_remedy_stay_together() -> None:
    error = "x.nii: found no brain; nor a skull (1; 2); expected a head; look at it."
    assert split_reasons(error) == [
        "x.nii: found no brain",
        "nor a skull (1; 2)",
        "expected a head; look at it.",
    ]


def test_the_command_writes_pages_from_the_table(files: Path) -> None:
    result = CliRunner().invoke(
        app, ["report", str(files / "ages.csv"), "-o", str(files / "pages"), "--maps", str(files / "maps")]
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.split()[-1].endswith("index.html")
    assert len(result.stdout.split()) == 6
    result = CliRunner().invoke(
        app, ["report", str(files / "sub-2_T1w.nii.gz"), "-o", str(files / "page.html")]
    )
    assert result.exit_code == 2


@pytest.mark.parametrize("ending", [".mgz", ".hdr", "_metres.nii", "_dicom"])
def test_a_scan_of_any_format_that_preprocessing_takes_is_shown(tmp_path: Path, ending: str) -> None:
    values = np.random.default_rng(0).uniform(1, 800, (60, 66, 56)).astype(np.float32)
    affine = np.diag([-3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = 90, -95, -80
    path = tmp_path / f"scan{ending}"
    if ending == ".mgz":
        nib.save(nib.MGHImage(values, affine), path)
    elif ending == ".hdr":
        nib.save(nib.AnalyzeImage(values.astype(np.int16), affine), path)
    elif ending == "_dicom":
        _SERIES.write_series(path, values, spacing=(3.0, 3.0, 3.0))
    else:
        image = nib.Nifti1Image(values, np.diag([0.001, 0.001, 0.001, 1.0]) @ affine)
        image.header.set_xyzt_units("meter")
        nib.save(image, path)
    array, own, _ = read_scan(path)
    write_maps(tmp_path / "maps", "sub-1", own, array.shape)
    prefix = tmp_path / "maps" / "sub-1" / "sub-1"
    shown = ScanImages(prefix, path).t1()
    np.testing.assert_allclose(shown.affine, own, atol=1e-4)
    assert np.corrcoef(np.asarray(shown.dataobj).ravel(), array.ravel())[0, 1] > 0.99
    assert viewer_data(ScanImages(prefix, path))
