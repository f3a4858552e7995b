"""Caption files of every form, and what is wrong with them; tokens."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from brainage.data.captioned_images import image_file, load_captioned
from brainage.data.captions import has_splits, read_captions
from brainage.data.tokenizer import encode, learn_tokenizer, tokenizer_of, vocabulary_of
from brainage.errors import InputError
from brainage.retrieval_config import TokenizerRecipe


def karpathy(path, entries):
    images = [
        {"filename": name, "split": split, "sentences": [{"raw": text} for text in texts]}
        for name, split, texts in entries
    ]
    path.write_text(json.dumps({"dataset": "test", "images": images}))
    return path


def test_restval_is_train_and_folders_are_kept(tmp_path):
    path = karpathy(
        tmp_path / "dataset_coco.json",
        [("a.jpg", "train", ["one"]), ("b.jpg", "restval", ["two", "three"]), ("c.jpg", "val", ["four"])],
    )
    content = json.loads(path.read_text())
    content["images"][1]["filepath"] = "val2014"
    path.write_text(json.dumps(content))
    train = read_captions(path, "train")
    assert train.files == ("a.jpg", "val2014/b.jpg")
    assert train.texts == (("one",), ("two", "three"))
    assert train.num_captions == 3
    assert has_splits(path)
    with pytest.raises(InputError, match="no image of the split 'test'; expected one of train, val"):
        read_captions(path, "test")


def test_other_forms(tmp_path):
    coco = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "annotations": [
            {"image_id": 8, "caption": "x"},
            {"image_id": 7, "caption": "y"},
            {"image_id": 8, "caption": "z"},
        ],
    }
    listed = [{"image": "b.jpg", "caption": ["x", "z"]}, {"image": "a.jpg", "caption": "y"}]
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    (tmp_path / "list.json").write_text(json.dumps(listed))
    (tmp_path / "table.txt").write_text("image,caption\nb.jpg, x\na.jpg,y\nb.jpg,z\n")
    (tmp_path / "table.tsv").write_text("b.jpg\tx\na.jpg\ty\nb.jpg\tz\n")
    for name in ("coco.json", "list.json", "table.txt", "table.tsv"):
        captions = read_captions(tmp_path / name, "val")
        assert captions.files == ("b.jpg", "a.jpg"), name
        assert captions.texts == (("x", "z"), ("y",)), name
        assert not has_splits(tmp_path / name)


def test_a_caption_with_commas_stays_whole(tmp_path):
    (tmp_path / "t.csv").write_text('image,caption\na.jpg,"red, green"\nb.jpg,red, green and blue\n')
    assert read_captions(tmp_path / "t.csv").texts == (("red, green",), ("red, green and blue",))


def test_empty_captions_are_counted(tmp_path, caplog):
    path = karpathy(
        tmp_path / "d.json",
        [("a.jpg", "val", ["one", " ", ""]), ("b.jpg", "val", [""]), ("c.jpg", "val", ["x"])],
    )
    with caplog.at_level("WARNING", logger="brainage"):
        captions = read_captions(path, "val")
    assert captions.files == ("a.jpg", "c.jpg")
    assert captions.dropped == {"empty captions": 3, "images without a caption": 1}
    assert "left out 3 empty captions, 1 images without a caption" in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "neither JSON nor a table"),
        ('{"images": [{"filename": "a.jpg"}]}', "entries without an image or captions"),
        ("[]", "no image with a caption"),
        ("3", "entries without"),
    ],
)
def test_wrong_files(tmp_path, content, said):
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(InputError, match=said):
        read_captions(tmp_path / "d.json", "val")


def test_names_must_be_unique_and_inside(tmp_path):
    path = karpathy(tmp_path / "d.json", [("a.jpg", "val", ["one"]), ("a.jpg", "val", ["two"])])
    with pytest.raises(InputError, match="two images of the name a"):
        read_captions(path, "val")
    path = karpathy(tmp_path / "d.json", [("../a.jpg", "val", ["one"])])
    with pytest.raises(InputError, match="outside the folder"):
        read_captions(path, "val")
    with pytest.raises(InputError, match="no such file"):
        read_captions(tmp_path / "none.json", "val")


def test_images_that_do_not_exist_or_are_text_are_counted(tmp_path, caplog):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (9, 8)).save(tmp_path / name)
    (tmp_path / "text.png").write_text("text")
    names = ("a.png", "gone.png", "text.png", "b.png")
    path = karpathy(tmp_path / "d.json", [(name, "val", [name, "x"]) for name in names])
    with caplog.at_level("WARNING", logger="brainage"):
        images = load_captioned(path, tmp_path, "val", 4)
    assert images.files == ("a.png", "b.png")
    assert images.skipped == ("gone.png", "text.png")
    assert images.captions == ["a.png", "x", "b.png", "x"]
    assert images.owners == [0, 0, 1, 1]
    assert "2 of 4 images are left out with their captions, 1 missing and 1 no readable images" in caplog.text
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="0 of the 4 images that"):
        load_captioned(path, tmp_path / "empty", "val", 4)
    with pytest.raises(InputError, match="no such folder"):
        load_captioned(path, tmp_path / "none", "val", 4)


def test_images_in_one_folder_are_found_without_the_names_of_folders(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    path = karpathy(tmp_path / "d.json", [(f"val2014/{name}", "val", ["x"]) for name in ("a.png", "b.png")])
    loaded = load_captioned(path, tmp_path, "val", 4)
    assert loaded.files == ("val2014/a.png", "val2014/b.png")
    # A contact sheet finds them again.
    assert [image_file(tmp_path, name).is_file() for name in loaded.files] == [True, True]
    (tmp_path / "val2014").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "val2014" / "a.png")
    assert image_file(tmp_path, "val2014/a.png") == tmp_path / "val2014" / "a.png"
    assert image_file(tmp_path, "val2014/c.png") == tmp_path / "val2014" / "c.png"


CAPTIONS = ["A red Square above", "a red circle", "two red squares", "a green circle"]


def test_tokens_end_and_are_filled_up():
    tokenizer = learn_tokenizer(CAPTIONS, 300)
    ids, cut = encode(tokenizer, ["a red circle", "A RED  circle"], 12)
    assert cut == 0
    used = int((ids[0] != 0).sum())
    assert ids[0, used - 1] == tokenizer.token_to_id("<end>") == 1
    assert not ids[0, used:].any()
    assert tokenizer.decode(ids[0, : used - 1].tolist()).strip() == "a red circle"
    assert int(ids.max()) < vocabulary_of(tokenizer)


def test_long_captions_are_cut_and_counted_and_still_end():
    tokenizer = learn_tokenizer(CAPTIONS, 300)
    ids, cut = encode(tokenizer, ["a red circle " * 9, "a"], 5)
    assert cut == 1
    assert ids[0, -1] == 1
    assert ids.shape == (2, 5)


def test_same_captions_same_tokenizer_and_nothing_is_unknown():
    tokenizer = learn_tokenizer(CAPTIONS, 300)
    assert tokenizer.to_str() == learn_tokenizer(reversed(CAPTIONS), 300).to_str()
    ids, _ = encode(tokenizer, ["Öl, 水 & <pad>"], 40)
    assert "水" in tokenizer.decode(ids[0][ids[0] > 1].tolist())


def test_a_tokenizer_by_path(tmp_path):
    tokenizer = learn_tokenizer(CAPTIONS, 300)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert tokenizer_of(TokenizerRecipe(path=tmp_path / "tokenizer.json"), []).to_str() == tokenizer.to_str()
    (tmp_path / "bad.json").write_text("{}")
    for name, said in (("bad.json", "cannot read"), ("none.json", "no such file")):
        with pytest.raises(InputError, match=said):
            tokenizer_of(TokenizerRecipe(path=tmp_path / name), [])


def test_the_ids_of_a_foreign_tokenizer_make_room_for_padding(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    foreign = Tokenizer(models.WordLevel({"a": 0, "red": 1, "?": 2}, unk_token="?"))
    foreign.pre_tokenizer = pre_tokenizers.Whitespace()
    ids, cut = encode(foreign, ["a red a", "red"], 2)
    assert ids.tolist() == [[1, 2], [2, 0]]
    assert cut == 1
    assert vocabulary_of(foreign) == 4
