"""Pictures of maps: sides, units and places are said, and what cannot be drawn is refused."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from typer.testing import CliRunner

from brainage.anatomy.grid import MODEL_GRID, SPACE
from brainage.cli.main import app
from brainage.errors import InputError
from brainage.report.mosaic import EXPERT_COLOURS
from brainage.report.overlay_cohort import age_groups, expert_atlas, find_prefixes

EXPERTS = ["frontal", "limbic", "free 1"]


def write_scan(folder: Path, name: str, years: float, owner: int) -> Path:
    """Maps of a scan: ``years`` on the left half, minus that on the right; one expert has all blocks."""
    grid = MODEL_GRID.coarsen(8)
    prefix = folder / name / name
    prefix.parent.mkdir(parents=True)
    data = np.full(grid.shape, np.nan, np.float32)
    data[2:5, 2:10, 2:8], data[5:8, 2:10, 2:8] = years, -years
    shares = np.zeros((*grid.shape, 3), np.float32)
    shares[2:8, 2:10, 2:8, owner] = 1
    fine = np.repeat(np.repeat(np.repeat(data, 8, 0), 8, 1), 8, 2)
    for values, affine, name in (
        (data, grid.affine, "res-token_desc-contribution"),
        (shares, grid.affine, "res-token_desc-shares"),
        (fine, MODEL_GRID.affine, "desc-contribution"),
        (np.nan_to_num(np.where(np.isfinite(fine), owner + 1, 0)), MODEL_GRID.affine, "desc-expert"),
    ):
        image = nib.Nifti1Image(values.astype(np.float32), affine)
        nib.save(image, f"{prefix}_space-{SPACE}_{name}_map.nii.gz")
    Path(f"{prefix}_regions.json").write_text(json.dumps({"experts": EXPERTS}))
    return prefix


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    for number, (years, owner) in enumerate(((0.4, 0), (0.2, 0), (-0.3, 2)), 1):
        write_scan(tmp_path / "maps", f"sub-{number}", years, owner)
    ages = "participant_id\tage\nsub-1\t25\nsub-2\t30\nsub-3\t80\n"
    (tmp_path / "participants.tsv").write_text(ages)
    return tmp_path / "maps"


def draw(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["overlay", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_left_is_on_the_right_of_the_picture(maps: Path, tmp_path: Path) -> None:
    out = tmp_path / "slices.png"
    draw(maps / "sub-1", "-o", out, "--kind", "slices", "--at=0,20")
    picture = np.asarray(Image.open(out).convert("RGB")).astype(int)
    picture = picture[60:-50, : int(0.85 * 1440)]  # without the bar and the texts
    red, blue = picture[..., 0] - picture[..., 2] > 60, picture[..., 2] - picture[..., 0] > 60
    assert min(red.sum(), blue.sum()) > 2000
    # The left half, which adds years, lies right of the other one within each slice.
    middle = picture.shape[1] / 2
    for half in (slice(None, int(middle)), slice(int(middle), None)):
        assert np.nonzero(red[:, half])[1].mean() > np.nonzero(blue[:, half])[1].mean() + 50


def test_an_svg_says_sides_places_and_unit(maps: Path, tmp_path: Path) -> None:
    out = tmp_path / "slices.svg"
    draw(maps / "sub-1", "-o", out, "--kind", "slices", "--axis", "y", "--at=-20,10")
    text = out.read_text("utf-8")
    for words in (
        "years per block",
        "older",
        "younger",
        "y=-20",
        "y=10",
        "MNI coordinates in mm",
        "not where disease is",
    ):
        assert f"<!-- {words}" in text or words in text, words
    first = out.read_bytes()
    draw(maps / "sub-1", "-o", out, "--kind", "slices", "--axis", "y", "--at=-20,10")
    assert len(out.read_bytes()) == len(first)


@pytest.mark.parametrize(
    "options",
    [
        ["--kind", "glass"],
        ["--map", "expert"],
        ["--kind", "ages", "--participants", "P"],
        ["--kind", "experts"],
    ],
)
def test_every_kind_is_drawn(maps: Path, tmp_path: Path, options: list[str]) -> None:
    options = [str(tmp_path / "participants.tsv") if option == "P" else option for option in options]
    folder = maps if set(options) & {"ages", "experts"} else maps / "sub-1"
    draw(folder, "-o", tmp_path / "picture.png", *options)
    picture = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")).astype(int)
    assert (np.ptp(picture, axis=2) > 60).mean() > 0.01


def test_owners_and_agreement_by_hand(maps: Path) -> None:
    atlas = expert_atlas(find_prefixes([maps]))
    inside = np.asarray(atlas.owner.dataobj) > 0
    assert inside.sum() == 6 * 8 * 6
    assert (np.asarray(atlas.owner.dataobj)[inside] == 1).all()  # two scans of three
    np.testing.assert_allclose(np.asarray(atlas.agreement.dataobj)[inside], 2 / 3, rtol=1e-6)


def test_means_by_age_by_hand(maps: Path) -> None:
    young, old = age_groups(find_prefixes([maps]), [25, 30, 80], [35, 75])
    assert (young.name, young.scans, old.name, old.scans) == ("under 35", 2, "75 and over", 1)
    assert np.asarray(young.mean.dataobj)[3, 5, 5] == pytest.approx(0.3)
    assert np.asarray(old.mean.dataobj)[3, 5, 5] == pytest.approx(-0.3)


def test_scans_of_two_models_make_no_atlas(maps: Path) -> None:
    (maps / "sub-2" / "sub-2_regions.json").write_text(json.dumps({"experts": ["a", "b", "c"]}))
    with pytest.raises(InputError, match="another model's experts"):
        expert_atlas(find_prefixes([maps]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["maps/sub-1", "-o", "a.jpg"], "must end with .png or .svg"),
        (["maps", "-o", "a.png"], "give the folder of one"),
        (["empty", "-o", "a.png"], "no maps"),
        (
            ["maps/sub-1", "-o", "a.png", "--kind", "glass", "--map", "expert"],
            "needs the map of contributions",
        ),
        (["maps", "-o", "a.png", "--kind", "ages"], "--kind ages needs it"),
        (["maps/sub-1", "-o", "a.png", "--kind", "slices", "--at", "left"], "no list of numbers"),
        (["maps/sub-1", "-o", "a.png", "--scan", "other.nii.gz"], "no such file"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(app, ["overlay", *arguments])
    assert result.exit_code in (1, 2)
    assert words in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "a.png").exists()


# Viénot, Brettel and Mollon 1999, doi:10.1002/(SICI)1520-6378(199908)24:4<243::AID-COL5>3.0.CO;2-3:
# what is left of linear RGB without the red or the green cones.
_DICHROMATS = {
    "protan": np.array([[0.1124, 0.8876, 0.0], [0.1124, 0.8876, 0.0], [0.0040, -0.0040, 1.0]]),
    "deutan": np.array([[0.2927, 0.7073, 0.0], [0.2927, 0.7073, 0.0], [-0.0223, 0.0223, 1.0]]),
}


@pytest.mark.parametrize("kind", _DICHROMATS)
def test_experts_stay_apart_for_colour_blind_readers(kind: str) -> None:
    rgb = np.array([to_rgb(colour) for colour in EXPERT_COLOURS[:12]])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ _DICHROMATS[kind].T, 0, 1)
    lab = _lab(seen)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(len(lab))
    assert apart.min() > 25  # a difference of 2.3 in CIELAB is just seen


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.column_stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])])
