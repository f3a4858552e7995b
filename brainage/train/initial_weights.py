"""Where the weights of an image encoder begin, when they do not begin at random."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from brainage.errors import CheckpointError
from brainage.files import sha256_of
from brainage.models.image_encoder import ImageEncoder
from brainage.models.initial_weights import load_encoder
from brainage.train.log import logger


def start_from(encoder: ImageEncoder, path: Path) -> tuple[Tensor, Tensor] | None:
    """Give an encoder trained weights, say what became of them, and return the file's head if it has one.

    Args:
        encoder: of the file's sizes.
        path: of a classifier of this package, or of a published vision transformer.

    Raises:
        CheckpointError: the file is neither.
        ConfigError: the recipe's sizes or router are not the file's.
    """
    loaded = load_encoder(encoder, path)
    if loaded.resampled:
        logger.info("Positions of %s resampled from %d x %d patches", path.name, *loaded.resampled)
    for block, error in loaded.upcycled.items():
        logger.info(
            "Experts of block %d made of its network, relative error of the weights %.2g", block, error
        )
    return loaded.head


def origin(path: Path | None) -> str | None:
    """What stands for a file of first weights in a model that began from it: sixteen digits of its SHA-256.

    Its name and folder are nobody's business. None for no file.

    Raises:
        CheckpointError: the file cannot be read.
    """
    if path is None:
        return None
    try:
        return sha256_of(path)[:16]
    except OSError as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else f"{error.strerror}".lower()
        remedy = "correct init; a training that began from it goes on with the same file alone"
        raise CheckpointError(path, found, "a model to begin from", remedy) from error
