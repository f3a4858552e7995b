"""Images that do not fit in memory, and WebDataset shards: the same as those in memory, in any order."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from brainage.data.image_stream import random_crop
from brainage.data.images import StreamedImages, load_images
from brainage.data.rand_augment import OPERATIONS, rand_augment
from brainage.errors import InputError
from brainage.vision_config import ImageAugmentRecipe


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(("a", "b")):
        (tmp_path / "train" / name).mkdir(parents=True)
        for index in range(3):
            picture(10 * label + index).save(tmp_path / "train" / name / f"{index}.png")
    (tmp_path / "train" / "b" / "bad.png").write_text("text")
    return tmp_path


def shards(folder, text="0123456789"):
    """Two shards of the folder's images; ``text`` gives the label of class 0, 1, ..."""
    for number, name in enumerate(("a", "b")):
        with tarfile.open(folder / f"train-{number:04}.tar", "w") as tar:
            for path in sorted((folder / "train" / name).iterdir()):
                for ending, content in (("png", path.read_bytes()), ("cls", text[number].encode())):
                    member = tarfile.TarInfo(f"{name}{path.stem}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    (folder / "train").rename(folder / "away")


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_equal_those_in_memory(folder, monkeypatch, workers, caplog):
    kept = load_images(folder, "train", 8)
    monkeypatch.setattr("brainage.data.images.MEMORY_LIMIT", 100)
    streamed = load_images(folder, "train", 8, workers=workers)
    assert isinstance(streamed, StreamedImages)
    assert len(streamed) == 7
    parts = list(streamed.source.batches([[5, 0], [1, 2, 6], [3, 4]]))
    assert [index.tolist() for _, index in parts] == [[5, 0], [1, 2], [3, 4]]
    for pixels, index in parts:
        assert torch.equal(pixels, kept.pixels_NCHW[index])
    assert streamed.skipped == kept.skipped == ("b/bad.png",)
    assert "1 of 7 files are no readable images" in caplog.text


def test_shards_equal_the_folder(folder):
    kept = load_images(folder, "train", 8)
    shards(folder)
    streamed = load_images(folder, "train", 8)
    assert streamed.classes == ("0", "1")
    ((pixels, index),) = streamed.source.batches([range(7)])
    assert torch.equal(pixels, kept.pixels_NCHW)
    assert torch.equal(streamed.label_N[index], kept.label_N)
    assert streamed.skipped == ("train-0001.tar/bbad.png",)


def test_wrong_shards(folder, caplog):
    shards(folder, text="33")
    with pytest.raises(InputError, match="1 classes"):
        load_images(folder, "train", 8)
    with tarfile.open(folder / "train-0002.tar", "w") as tar:
        member = tarfile.TarInfo("lonely.png")
        tar.addfile(member, io.BytesIO())
    with pytest.raises(InputError, match="1 classes"):
        load_images(folder, "train", 8)
    assert "train-0002.tar/lonely.png has no label" in caplog.text
    (folder / "train-0000.tar").write_bytes(b"\x1f\x8b no tar")
    with pytest.raises(InputError, match="no uncompressed tar"):
        load_images(folder, "train", 8)


def test_labels_that_a_model_does_not_know(folder):
    shards(folder)
    with pytest.raises(InputError, match="found no label for a, b; expected a label for each of the 2"):
        load_images(folder, "train", 8, ("a", "b"))


def test_two_images_of_one_name_in_a_shard(folder):
    shards(folder)
    with tarfile.open(folder / "train-0001.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("b0.jpg"), io.BytesIO())
    with pytest.raises(InputError, match=r"train-0001\.tar: found two images of the name b0"):
        load_images(folder, "train", 8)


@pytest.mark.parametrize(
    ("size", "mode", "ending"),
    [
        ((1, 1), "RGB", "png"),
        ((12, 9), "CMYK", "jpg"),
        ((12, 9), "P", "png"),
        ((12, 9), "I;16", "png"),
        ((12, 9), "L", "jpg"),
        ((12, 9), "RGBA", "png"),
        ((1, 40), "RGB", "jpg"),
    ],
)
def test_training_crops_of_every_kind_of_image(tmp_path, size, mode, ending):
    if mode == "I;16":
        image = Image.fromarray(np.full(size[::-1], 128 * 257, dtype=np.uint16))
    else:
        image = Image.new("RGB", size, (128, 128, 128))
        # Converting to a palette would dither.
        image = image.quantize(2) if mode == "P" else image.convert(mode)
    image.save(tmp_path / f"a.{ending}")
    recipe = ImageAugmentRecipe(scale=0.08, rand_augment=0)
    for seed in range(5):
        with (tmp_path / f"a.{ending}").open("rb") as file:
            crop = random_crop(file, 6, recipe, np.random.default_rng(seed))
        assert (crop.shape, crop.dtype) == ((3, 6, 6), np.uint8)
        np.testing.assert_allclose(crop, 128, atol=3)


def test_training_crops_are_upright(tmp_path):
    image = Image.new("RGB", (8, 16), "white")
    image.paste("red", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a.png", exif=exif)
    recipe = ImageAugmentRecipe(scale=1, aspect=1, rand_augment=0)
    with (tmp_path / "a.png").open("rb") as file:
        crop = random_crop(file, 8, recipe, np.random.default_rng(0))
    assert crop[:, -1, 0].tolist() == [255, 0, 0]
    assert crop[:, 0, 0].tolist() == [255, 255, 255]


def test_training_replaces_what_is_unreadable_and_repeats(folder, monkeypatch):
    monkeypatch.setattr("brainage.data.images.MEMORY_LIMIT", 100)
    streamed = load_images(folder, "train", 8)
    recipe = ImageAugmentRecipe(scale=0.3, rand_augment=5)
    (first, index), (again, _) = (next(streamed.source.batches([[6, 1, 2]], recipe, seed)) for seed in (1, 1))
    assert index.tolist() == [1, 2, 1]
    assert torch.equal(first, again)
    assert torch.equal(first[0], first[2])
    other, _ = next(streamed.source.batches([[6, 1, 2]], recipe, 2))
    assert not torch.equal(first, other)
    ((pixels, index),) = streamed.source.batches([[6]], recipe)
    assert pixels.shape == (0, 3, 8, 8)
    assert not len(index)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("strength", [-1.0, 0.0, 0.9])
def test_every_operation_keeps_the_kind_of_image(operation, strength):
    varied = operation(picture(0), strength)
    assert (varied.size, varied.mode) == ((16, 12), "RGB")


def test_rand_augment_repeats_and_varies():
    results = {rand_augment(picture(0), 9, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert len(results) > 12
    again = rand_augment(picture(0), 9, np.random.default_rng(3))
    assert again.tobytes() == rand_augment(picture(0), 9, np.random.default_rng(3)).tobytes()


def test_images_in_memory_are_varied_too(folder):
    kept = load_images(folder, "train", 8)
    plain, _ = next(kept.source.batches([[0, 1, 2, 3]], ImageAugmentRecipe()))
    assert torch.equal(plain, kept.pixels_NCHW[:4])
    varied, _ = next(kept.source.batches([[0, 1, 2, 3]], ImageAugmentRecipe(rand_augment=9), 1))
    assert varied.shape == plain.shape
    assert not torch.equal(varied, plain)
