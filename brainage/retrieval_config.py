"""The YAML recipes of image-text retrieval."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from brainage.config import Recipe, TrainRecipe
from brainage.vision_config import ImageAugmentRecipe, ImageModelRecipe, TransformerRecipe


class TokenizerRecipe(Recipe):
    """How captions become tokens.

    Attributes:
        path: a ``tokenizer.json`` of the ``tokenizers`` library, CLIP's ``vocab.json`` with ``merges.txt``
            beside it, or a folder that holds either; by default one is learned from the captions to train on.
        vocabulary: entries at most of one that is learned.
    """

    path: Path | None = None
    vocabulary: int = Field(default=8000, ge=300)


class TextModelRecipe(TransformerRecipe):
    """A transformer that reads captions; mixtures where ``moe_blocks`` says so.

    Attributes:
        length: tokens of a caption, with the mark of its end; longer ones are cut, with a warning.
    """

    length: int = Field(default=32, ge=2)
    moe_blocks: tuple[int, ...] = ()


class RetrievalRecipe(Recipe):
    """One training of a dual encoder: model, augmentation and optimisation in one file.

    Attributes:
        name: of the model.
        image, text: the two towers.
        tokenizer: of the captions.
        embed_dim: width of the space that images and captions share.
        temperature: of the softmax over a batch at the start; it is learned.
        same_text: captions of a batch that read the same count as right for each other's images. Where many
            images share a caption, they would be pushed from it otherwise.
        augment: of the images; where captions speak of left and right, ``flip`` should be 0.
        train: ``batch_size`` is the number of captions that an image is told apart from, over all devices;
            with ``accumulate`` each micro-batch is contrasted within itself.
        init: model.safetensors of ``brainage vision train``, or of a published vision transformer, for the
            image tower to begin from. Random weights by default.
    """

    name: str = "ermoe-retrieval"
    image: ImageModelRecipe = ImageModelRecipe()
    text: TextModelRecipe = TextModelRecipe()
    tokenizer: TokenizerRecipe = TokenizerRecipe()
    embed_dim: int = Field(default=128, ge=2)
    temperature: float = Field(default=0.07, ge=0.01, le=10)
    same_text: bool = True
    augment: ImageAugmentRecipe = ImageAugmentRecipe()
    init: Path | None = None
    train: TrainRecipe = TrainRecipe(folds=0, batch_size=128)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.train.folds:
            raise ValueError("train.folds must be 0: caption files come with a validation split of their own")
        if self.train.batch_size // self.train.accumulate < 2:
            raise ValueError(
                "train.batch_size / accumulate must be at least 2: one pair has no other caption"
            )
        if self.augment.mixup:
            raise ValueError("augment.mixup must be 0: a mixture of two images has no caption")
        return self
