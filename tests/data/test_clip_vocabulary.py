"""CLIP's vocabulary by path, against transformers, with a tiny vocabulary made here."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, pre_tokenizers

from brainage.data.clip_vocabulary import END, START, read_tokenizer
from brainage.data.tokenizer import encode, tokenizer_of, vocabulary_of
from brainage.errors import InputError
from brainage.retrieval_config import TokenizerRecipe

MERGES = ["a t</w>", "c at</w>", "d o", "do g</w>", "t h", "th e</w>", "r e", "re d</w>", "' s</w>"]
TEXTS = [
    "The cat's dog, red!",
    "  A red\n\tCAT   sat  ",
    "don't 42 dogs—Ünïcode 水 🐱",
    f"cat {END} dog",
    "e\u0301 is é",
    "the red dog " * 9,
]


@pytest.fixture
def folder(tmp_path):
    """Bytes, bytes at the end of a word, merges, marks: the order of CLIP's own, where id 0 is a word."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [f"{letter}</w>" for letter in alphabet]
    tokens += ["".join(pair.split()) for pair in MERGES] + [START, END]
    (tmp_path / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return tmp_path


def words(tokenizer, texts, length):
    ids, cut = encode(tokenizer, texts, length)
    return [[int(index) - 1 for index in row if index] for row in ids], cut


@pytest.mark.parametrize("length", [77, 8])
def test_ids_are_those_of_transformers(folder, length):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPTokenizer.from_pretrained(folder)
    ours = tokenizer_of(TokenizerRecipe(path=folder), [])
    expected = [theirs(text, truncation=True, max_length=length)["input_ids"] for text in TEXTS]
    found, cut = words(ours, TEXTS, length)
    assert found == expected
    assert cut == sum(len(theirs(text)["input_ids"]) > length for text in TEXTS)
    assert vocabulary_of(ours) == len(theirs) + 1
    assert all(row[-1] == ours.token_to_id(END) for row in found)


def test_merges_and_marks_by_hand(folder):
    ours = read_tokenizer(folder / "vocab.json")
    assert ours.encode("Red cat's").tokens == [START, "red</w>", "cat</w>", "'s</w>", END]


def test_a_tokenizer_json_gives_the_same_whatever_it_pads_to(folder, tmp_path):
    ours = read_tokenizer(folder)
    padded = Tokenizer.from_str(ours.to_str())
    padded.enable_padding(length=77, pad_token=END, pad_id=ours.token_to_id(END))
    padded.enable_truncation(3)
    (tmp_path / "other").mkdir()
    padded.save(str(tmp_path / "other" / "tokenizer.json"))
    for path in (tmp_path / "other", tmp_path / "other" / "tokenizer.json"):
        assert words(read_tokenizer(path), TEXTS, 20) == words(ours, TEXTS, 20)


def test_what_is_no_vocabulary(folder, tmp_path):
    cases = {"none": "no such file", "empty": "a folder without a tokenizer"}
    (tmp_path / "empty").mkdir()
    for name, said in cases.items():
        with pytest.raises(InputError, match=said):
            read_tokenizer(tmp_path / name)
    content = json.loads((folder / "vocab.json").read_text("utf-8"))
    content["other"] = content.pop(START)
    (folder / "vocab.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"a vocabulary without <\|startoftext\|>"):
        read_tokenizer(folder)
    (folder / "vocab.json").write_text("[]")
    with pytest.raises(InputError, match=r"vocab.json: found a file that the tokenizers library cannot read"):
        read_tokenizer(folder)
    (folder / "merges.txt").unlink()
    with pytest.raises(InputError, match=r"merges.txt: found no such file"):
        read_tokenizer(folder)
