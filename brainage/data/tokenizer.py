"""Captions to token ids: byte-pair encoding by the ``tokenizers`` library."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from brainage.data.clip_vocabulary import read_tokenizer
from brainage.models.dual_encoder import PAD
from brainage.retrieval_config import TokenizerRecipe

logger = logging.getLogger("brainage")

PAD_TOKEN, END_TOKEN = "<pad>", "<end>"
_TOGETHER = 10_000  # captions; the library's record of each is far larger than its ids


def tokenizer_of(recipe: TokenizerRecipe, captions: Iterable[str]) -> Tokenizer:
    """The tokenizer of a recipe: read from its file, or learned from captions.

    Raises:
        InputError: the file is no tokenizer.
    """
    if recipe.path is None:
        return learn_tokenizer(captions, recipe.vocabulary)
    return read_tokenizer(recipe.path)


def learn_tokenizer(captions: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-pair encoding (arXiv 1508.07909) of lower-case text on bytes, so that nothing is unknown.

    Learned from the sorted captions: the same captions give the same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[PAD_TOKEN, END_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(captions), trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, captions: Sequence[str], length: int) -> tuple[Tensor, int]:
    """Token ids (captions, ``length``) int64, filled up with ``PAD``, and how many captions were cut.

    A tokenizer that was learned here ends every caption with its mark of the end, also a cut one, and so does
    a foreign one that puts marks around texts, as CLIP's. A foreign one may use id 0 for a word: its ids are
    moved up by one, see :func:`vocabulary_of`.
    """
    end = tokenizer.token_to_id(END_TOKEN)
    marks = [] if end is None else [end]
    shift = _shift(tokenizer)
    cutting = Tokenizer.from_str(tokenizer.to_str())
    cutting.no_padding()
    cutting.enable_truncation(length - len(marks))
    ids_BN = np.full((len(captions), length), PAD, dtype=np.int64)
    place_N = np.arange(length)
    cut = 0
    for start in range(0, len(captions), _TOGETHER):
        encodings = cutting.encode_batch_fast(list(captions[start : start + _TOGETHER]))
        cut += sum(bool(encoding.overflowing) for encoding in encodings)
        ids = [encoding.ids + marks for encoding in encodings]
        used_BN = place_N < np.array([len(row) for row in ids])[:, None]
        ids_BN[start : start + len(ids)][used_BN] = np.concatenate(ids) + shift
    return torch.from_numpy(ids_BN), cut


def vocabulary_of(tokenizer: Tokenizer) -> int:
    """One more than the largest id that :func:`encode` can give."""
    return max(tokenizer.get_vocab().values()) + 1 + _shift(tokenizer)


def _shift(tokenizer: Tokenizer) -> int:
    return 0 if tokenizer.token_to_id(PAD_TOKEN) == PAD else 1


def encode_with_warning(tokenizer: Tokenizer, captions: Sequence[str], length: int, what: str) -> Tensor:
    """As :func:`encode`; captions that were cut are counted in a warning."""
    ids_BN, cut = encode(tokenizer, captions, length)
    if cut:
        logger.warning("%d of %d captions %s are longer than text.length (%d tokens) and are cut",
                       cut, len(captions), what, length)  # fmt: skip
    return ids_BN
