"""The mosaic: sides are where the letters say, in every orientation, and everything that must be said is."""

import nibabel as nib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from brainage.errors import ConfigError
from brainage.report.mosaic import draw_mosaic, save_mosaic

NAMES = ["frontal", "white_matter", "free 1"]
ROWS = ("T1", "contribution", "expert", "alignment")


def scan(codes="RAS", spacing=(2.0, 2.0, 2.0)):
    """A ball of tissue with a bright spot on the right, and maps: older on the left half, younger right."""
    x, y, z = np.indices((70, 80, 60), dtype=np.float32) - np.array([34.5, 39.5, 29.5])[:, None, None, None]
    ball = x**2 / 30**2 + y**2 / 35**2 + z**2 / 25**2 < 1
    t1 = np.where(ball, 400.0, 0) + np.where((x - 15) ** 2 + y**2 + z**2 < 64, 500, 0)
    maps = {
        "contribution": np.where(x < 0, 0.5, -0.2),
        "expert": np.where(z < 0, 1.0, 3.0),
        "alignment": y / 40,
    }
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -70, -80, -60
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
    )

    def image(data):
        return nib.Nifti1Image(data.astype(np.float32), affine).as_reoriented(turn)

    return image(t1), {name: image(np.where(ball, data, np.nan)) for name, data in maps.items()}


def draw(t1, maps, **options):
    figure = draw_mosaic(t1, **maps, expert_names=NAMES, title="sub-01", **options)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    panels = [axes for axes in figure.axes if axes.images and len(axes.texts) == 2]
    return figure, panels, pixels


def cut_out(axes, pixels):
    """The panel's pixels, left of the picture first."""
    extent = axes.get_window_extent()
    height = pixels.shape[0]
    return pixels[round(height - extent.y1) : round(height - extent.y0), round(extent.x0) : round(extent.x1)]


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSR", "LPS", "SAL", "IRP"])
def test_left_is_where_the_letter_says_in_every_orientation(codes):
    _, panels, pixels = draw(*scan(codes))
    assert len(panels) == 4 * 8
    for column in range(6):  # axial and coronal
        anatomy, map_panel = panels[column], panels[8 + column]
        for axes in (anatomy, map_panel):
            letters = {text.get_text(): text.get_position()[0] for text in axes.texts}
            assert letters["R"] < 0.5 < letters["L"]
        shown = cut_out(map_panel, pixels)
        red = shown[..., 0] - shown[..., 2] > 40
        blue = shown[..., 2] - shown[..., 0] > 15
        middle = shown.shape[1] / 2
        assert np.nonzero(red)[1].mean() > middle > np.nonzero(blue)[1].mean()
    # The bright spot of the anatomy is on the right of the subject, so on the left of the picture.
    coronal = cut_out(panels[4], pixels).sum(axis=-1)
    axial = cut_out(panels[1], pixels).sum(axis=-1)
    for panel in (coronal, axial):
        panel = panel[15:]  # below the letters
        assert np.nonzero(panel > 700)[1].mean() < panel.shape[1] / 2


def test_the_front_is_on_the_left_of_sagittal_slices():
    _, panels, pixels = draw(*scan("PSR"))
    sagittal = panels[3 * 8 + 6]
    assert [text.get_text() for text in sagittal.texts] == ["A", "P"]
    shown = cut_out(sagittal, pixels)
    yellow = (shown[..., 0] - shown[..., 2] > 40) & (shown[..., 1] > 100)  # high alignment: in front
    assert np.nonzero(yellow)[1].mean() < shown.shape[1] / 2
    titles = [axes.get_title() for axes in panels[:8]]
    assert titles[6:] == ["sagittal, right side", "sagittal, left side"]


def test_top_is_up():
    _, panels, pixels = draw(*scan("IRP"))
    shown = cut_out(panels[2 * 8 + 4], pixels)
    low = shown[..., 2] - shown[..., 0] > 40  # expert 1 is blue, and lies below
    assert np.nonzero(low)[0].mean() > shown.shape[0] / 2


def test_a_warning_is_shown_whole_and_clear_of_the_pictures():
    reason = "unlike the training scans, so the error may be much larger than the interval says; " * 3
    figure, panels, pixels = draw(*scan(), warning=reason.strip("; "))
    lines = [text for text in figure.texts if text.get_color() == "#ffd166"]
    assert " ".join(line.get_text() for line in lines) == f"Warning: {reason}".strip("; ")
    boxes = [line.get_window_extent() for line in lines]
    assert len(boxes) > 1
    assert all(box.x1 < pixels.shape[1] for box in boxes)
    assert min(box.y0 for box in boxes) > max(panel.get_window_extent().y1 for panel in panels)


def test_what_must_be_said_is_said():
    figure, _, _ = draw(*scan(), simulated=True)
    said = "\n".join(texts(figure))
    for words in (
        "Research use only",
        "Radiological convention: the subject's right (R) is on the left",
        "SIMULATED DATA",
        "years per patch",
        "cosine",
        "where experts work is not where disease is",
        "sub-01",
        *ROWS,
    ):
        assert words in said
    assert any(text.startswith("frontal  ") for text in texts(figure))
    assert not any("white matter" in text for text in texts(figure)), "an expert that works nowhere"
    figure, _, _ = draw(*scan())
    assert "SIMULATED" not in "\n".join(texts(figure))


def test_the_colours_of_contributions_are_centred_at_zero():
    figure, _, _ = draw(*scan())
    bar = next(axes for axes in figure.findobj(Axes) if axes.get_ylabel() == "years per patch")
    low, high = bar.get_ylim()
    assert low == pytest.approx(-high)
    assert high == pytest.approx(0.5)


def test_a_mask_bounds_the_maps():
    t1, maps = scan()
    mask = nib.Nifti1Image((np.asarray(t1.dataobj) > 800).astype(np.uint8), t1.affine)
    _, panels, pixels = draw(t1, maps, brain_mask=mask)
    shown = cut_out(panels[8 + 4], pixels)
    assert not (shown[..., 0] - shown[..., 2] > 40).any(), "red lies outside the mask"


def test_anisotropic_voxels_keep_their_proportions():
    _, panels, _ = draw(*scan("RAS", (1.0, 2.0, 3.0)))
    for axes in panels[:8]:
        width, height = np.abs(np.diff(axes.get_xlim()))[0], np.abs(np.diff(axes.get_ylim()))[0]
        extent = axes.get_window_extent()
        assert extent.width / extent.height == pytest.approx(width / height, rel=0.03)


def test_the_png_is_written_whole(tmp_path):
    t1, maps = scan()
    save_mosaic(tmp_path / "new" / "sub-01_mosaic.png", t1, **maps, expert_names=NAMES, title="sub-01")
    assert (tmp_path / "new" / "sub-01_mosaic.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sub-01_mosaic.png"]


def test_maps_that_do_not_fit_are_refused():
    t1, maps = scan()
    small = nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), t1.affine)
    with pytest.raises(ConfigError, match="grid of the T1"):
        draw_mosaic(t1, **{**maps, "alignment": small}, expert_names=NAMES, title="")
    empty = nib.Nifti1Image(np.full(t1.shape, np.nan, np.float32), t1.affine)
    with pytest.raises(ConfigError, match="must hold a value"):
        draw_mosaic(t1, **dict.fromkeys(maps, empty), expert_names=NAMES, title="")
