"""Reading image folders: every kind of picture, and every kind of wrong folder."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from brainage.data.image_decoding import decode
from brainage.data.images import find_classes, load_images
from brainage.errors import InputError

RED = (255, 0, 0)


def half_red(size=(8, 8)):
    """Upper half red, lower half white."""
    image = Image.new("RGB", size, "white")
    image.paste(RED, (0, 0, size[0], size[1] // 2))
    return image


def folder(root, split, classes, images=2):
    for number, name in enumerate(classes):
        (root / split / name).mkdir(parents=True)
        for index in range(images):
            image = Image.new("RGB", (8, 8), (40 * number, 0, index))
            image.save(root / split / name / f"{index}.png")
    return root


def test_cmyk_of_a_jpeg(tmp_path):
    Image.new("RGB", (8, 8), RED).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(decode(tmp_path / "a.jpg", 8)[:, 4, 4], RED, atol=4)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_colour_modes_give_the_same_picture(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    half_red().convert(mode).save(path)
    pixels = decode(path, 8)
    assert pixels.shape == (3, 8, 8)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[:, 0, 0], RED, atol=2)
    np.testing.assert_allclose(pixels[:, -1, 0], 255, atol=2)


def test_grey_of_16_bits_keeps_its_range(tmp_path):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    pixels = decode(tmp_path / "a.png", 8)
    np.testing.assert_allclose(pixels[0], values / 257, atol=1)
    np.testing.assert_array_equal(pixels[0], pixels[2])


def test_transparent_is_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (decode(tmp_path / "a.png", 4) == 255).all()


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    half_red().save(tmp_path / "a.png", exif=exif)
    pixels = decode(tmp_path / "a.png", 8)
    np.testing.assert_array_equal(pixels[:, -1, 0], RED)
    np.testing.assert_array_equal(pixels[:, 0, 0], 255)


@pytest.mark.parametrize("size", [(1, 1), (3, 17), (200, 20)])
def test_any_size_is_centre_cropped_to_the_square(tmp_path, size):
    half_red(size).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", 16).shape == (3, 16, 16)


def test_order_labels_and_limit(tmp_path):
    folder(tmp_path, "train", ("b", "a", "c"), images=3)
    (tmp_path / "train" / "a" / "notes.txt").write_text("no image")
    images = load_images(tmp_path, "train", 4, per_class=2)
    assert images.classes == ("a", "b", "c")
    assert images.label_N.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.pixels_NCHW[:, :, 0, 0].tolist()[:3] == [[40, 0, 0], [40, 0, 1], [0, 0, 0]]
    assert images.skipped == ()


def test_text_and_cut_files_are_counted_and_left_out(tmp_path, caplog):
    folder(tmp_path, "train", ("a", "b"))
    (tmp_path / "train" / "a" / "text.jpg").write_text("I am no picture")
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((64, 64), 80).save(whole)
    (tmp_path / "train" / "b" / "cut.jpg").write_bytes(whole.read_bytes()[:700])
    (tmp_path / "train" / "b" / "empty.png").write_bytes(b"")
    with caplog.at_level("WARNING", logger="brainage"):
        images = load_images(tmp_path, "train", 8)
    assert images.skipped == ("a/text.jpg", "b/cut.jpg", "b/empty.png")
    assert images.label_N.tolist() == [0, 0, 1, 1]
    assert "3 of 7 files in train are no readable images" in caplog.text


def test_a_class_that_is_missing_in_val_is_named(tmp_path):
    folder(tmp_path, "val", ("a", "c"))
    with pytest.raises(InputError, match="val: found no folder for b; expected a folder for each of the 3"):
        load_images(tmp_path, "val", 8, ("a", "b", "c"))


def test_an_unknown_class_is_named(tmp_path):
    folder(tmp_path, "val", ("a", "b", "zebra"))
    with pytest.raises(InputError, match="unknown classes: zebra"):
        load_images(tmp_path, "val", 8, ("a", "b"))


def test_a_class_without_a_readable_image_is_an_error(tmp_path):
    folder(tmp_path, "train", ("a", "b"))
    (tmp_path / "train" / "c").mkdir()
    with pytest.raises(InputError, match="c: found no readable image"):
        load_images(tmp_path, "train", 8)


def test_too_few_folders(tmp_path):
    with pytest.raises(InputError, match="train: found no such folder"):
        find_classes(tmp_path / "train")
    folder(tmp_path, "train", ("only",))
    with pytest.raises(InputError, match="1 class folders"):
        find_classes(tmp_path / "train")


def test_evaluation_crops_as_timm_does(tmp_path):
    """crop_pct 0.5: the image is resized to twice the size, and its middle quarter is kept."""
    image = Image.new("RGB", (16, 16), "white")
    image.paste(RED, (4, 4, 12, 12))
    image.save(tmp_path / "a.png")
    pixels = decode(tmp_path / "a.png", 8, 0.5)
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), np.broadcast_to(RED, (8, 8, 3)))
