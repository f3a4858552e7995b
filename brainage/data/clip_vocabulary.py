"""Tokenizers by path: a ``tokenizer.json``, or CLIP's ``vocab.json`` with ``merges.txt``."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from brainage.errors import InputError

START, END = "<|startoftext|>", "<|endoftext|>"
EXPECTED = "a tokenizer.json, or CLIP's vocab.json with merges.txt beside it"
REMEDY = "give such a file or its folder, or leave tokenizer.path out to learn one"

_PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a file or a folder in Hugging Face's layout.

    In a folder, ``tokenizer.json`` goes before ``vocab.json`` and ``merges.txt``.

    Raises:
        InputError: nothing there, or no tokenizer.
    """
    if not path.exists():
        raise InputError(path, "no such file", EXPECTED, REMEDY)
    file = path
    if path.is_dir():
        present = [path / name for name in ("tokenizer.json", "vocab.json") if (path / name).is_file()]
        if not present:
            raise InputError(path, "a folder without a tokenizer", EXPECTED, REMEDY)
        file = present[0]
    if file.name == "vocab.json" and not file.with_name("merges.txt").is_file():
        raise InputError(file.with_name("merges.txt"), "no such file", EXPECTED, REMEDY)
    try:
        if file.name != "vocab.json":
            return Tokenizer.from_file(str(file))
        tokenizer = _clip(file, file.with_name("merges.txt"))
    except Exception as error:  # the library raises bare Exceptions
        found = "a file that the tokenizers library cannot read"
        raise InputError(file, found, EXPECTED, REMEDY) from error
    marks: dict[str, int] = {}
    for mark in (START, END):
        index = tokenizer.token_to_id(mark)
        if index is None:
            raise InputError(file, f"a vocabulary without {mark}", "CLIP's vocabulary", REMEDY)
        marks[mark] = index
    tokenizer.add_special_tokens([START, END])
    tokenizer.post_processor = processors.RobertaProcessing((END, marks[END]), (START, marks[START]))
    return tokenizer


def _clip(vocabulary: Path, merges: Path) -> Tokenizer:
    """CLIP's splitting of lower-case text (arXiv 2103.00020), as ``transformers`` has it."""
    tokenizer = Tokenizer(
        models.BPE.from_file(
            str(vocabulary), str(merges), unk_token=END, end_of_word_suffix="</w>", fuse_unk=False
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
