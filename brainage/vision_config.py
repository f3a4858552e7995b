"""The YAML recipes of image classification, and of the transformers of the whole 2-D track."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from brainage.config import Recipe, RouterRecipe, TrainRecipe, router_field


class TransformerRecipe(Recipe):
    """A transformer with mixtures of experts, whatever its tokens are.

    Attributes:
        dim, depth, num_heads, hidden_dim: of the transformer.
        moe_blocks: indices of the blocks whose feed-forward layer is a mixture.
        num_experts, expert_hidden_dim: experts of a mixture and their width, that of the dense blocks by
            default.
        router: ``ermoe``, or one that it is compared with.
        rank: columns of a routing basis (``ermoe``: below ``dim``; ``emoe``: up to ``dim``).
        top_k: experts a token; ``soft`` gets as many slots as that makes pairs, ``dense`` as much width.
        threshold, coupling, fallback, scores: of ``ERMoE``.
        orthogonalization: of ``ermoe`` and ``emoe``; ``none`` leaves their bases free (ablation).
        balancing: weight of the balancing loss in training, averaged over the mixture blocks; 0 for none.
        context: what a token is compared with, see ``VisionTransformer``.
        dropout, drop_path: regularisation.
        layer_scale: where the gains of the residual branches start; null for none. From a small start the
            blocks do not drown what the stem tells already.
        router_settings: of the routers that ``ermoe`` is compared with: noise, capacity, temperature.
        norm_eps: added to the variance in layer norms; published checkpoints were trained with 1e-6 or 1e-12.
    """

    dim: int = Field(default=128, ge=8)
    depth: int = Field(default=4, ge=1)
    num_heads: int = Field(default=4, ge=1)
    hidden_dim: int = Field(default=256, ge=8)
    moe_blocks: tuple[int, ...] = (2, 3)
    num_experts: int = Field(default=8, ge=1)
    expert_hidden_dim: int | None = Field(default=None, ge=1)
    router: Literal["ermoe", "emoe", "vmoe", "cosine", "soft", "dense"] = "ermoe"
    rank: int = Field(default=16, ge=1)
    top_k: int = Field(default=2, ge=1)
    threshold: float = Field(default=0.0, ge=-1, lt=1)
    coupling: Literal["shared", "joint", "independent"] = "shared"
    orthogonalization: Literal["cayley", "qr", "none"] = "cayley"
    scores: Literal["eigenbasis", "aligned_energy", "learned"] = "eigenbasis"
    fallback: Literal["best", "skip"] = "best"
    balancing: float = Field(default=0.0, ge=0)
    context: Literal["attention_mean", "attention_output"] = "attention_mean"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    layer_scale: float | None = Field(default=None, gt=0)
    norm_eps: float = Field(default=1e-5, gt=0)
    router_settings: RouterRecipe | None = router_field()

    @model_validator(mode="after")
    def _transformer_fits(self) -> Self:
        if self.dim % self.num_heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of num_heads ({self.num_heads})")
        if any(not 0 <= block < self.depth for block in self.moe_blocks):
            raise ValueError(f"moe_blocks must lie between 0 and depth - 1 ({self.depth - 1})")
        if self.balancing and self.router in ("soft", "dense"):
            raise ValueError(f"balancing must be 0 for the router {self.router}, which chooses no experts")
        if self.router_settings is not None:
            self.router_settings.check(self.router)
        return self


class ImageModelRecipe(TransformerRecipe):
    """A vision transformer that reads images.

    Attributes:
        image_size, patch: edges of the square input and of a token, pixels.
        stem: how pixels become tokens: ``patch`` is one linear map of each patch, ``conv`` a few overlapping
            convolutions (arXiv 2106.14881), which learn faster from few images; ``patch`` is a power of 2.
        pooled_norm: standardise what the head reads by the statistics of the batch. Mean-pooled vectors of an
            untrained transformer are nearly alike for all images, and a linear head learns slowly from such.
        pooling: the head reads the mean of all tokens, or a learned class token put before them.
        mean, std: of the channels red, green and blue, in [0, 1]; images are normalised by them.
    """

    image_size: int = Field(default=64, ge=4)
    patch: int = Field(default=8, ge=1)
    stem: Literal["patch", "conv"] = "patch"
    pooling: Literal["mean", "cls"] = "mean"
    pooled_norm: bool = False
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _image_fits(self) -> Self:
        if self.image_size % self.patch:
            raise ValueError(f"patch ({self.patch}) must divide image_size ({self.image_size})")
        if self.stem == "conv" and (self.patch < 2 or self.patch & (self.patch - 1)):
            raise ValueError(f"patch ({self.patch}) must be a power of 2, at least 2, for the stem conv")
        if min(self.std) <= 0:
            raise ValueError("std must be positive")
        return self


class ImageAugmentRecipe(Recipe):
    """How training images are varied; each image on its own draw, all on the device, a batch at a time.

    Attributes:
        scale: lower bound of the area that a random crop keeps, 1 for no crop; crops of less than the whole
            image are resized to it.
        aspect: largest ratio of a crop's sides.
        flip: probability of a left-right flip.
        turns: also turn by 0, 90, 180 or 270 degrees, for images without an up, such as those from the air.
        rand_augment: strength of RandAugment (arXiv 1909.13719), up to 10; 0 for none.
        erasing: probability that a random rectangle (2 to 33 % of the area) is blanked.
        mixup: parameter alpha of the Beta distribution of mixup's weights (arXiv 1710.09412), 0 for none.
        cutmix: the same of CutMix's areas (arXiv 1905.04899); with both, a batch gets either by chance.
    """

    scale: float = Field(default=0.5, gt=0, le=1)
    aspect: float = Field(default=4 / 3, ge=1)
    flip: float = Field(default=0.5, ge=0, le=1)
    turns: bool = False
    rand_augment: float = Field(default=0.0, ge=0, le=10)
    erasing: float = Field(default=0.0, ge=0, le=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)


class VisionRecipe(Recipe):
    """One training of an image classifier: model, augmentation and optimisation in one file.

    Attributes:
        name: of the model.
        label_smoothing: share of the target spread over all classes.
        crop_pct: share of the resized image's edge that evaluation keeps, timm's ``crop_pct``.
        init: safetensors file to begin from: model.safetensors of ``brainage vision train``, or a published
            vision transformer with timm's or Hugging Face's names, of whose networks the experts of mixture
            blocks are made. Random weights by default.
    """

    name: str = "ermoe-images"
    model: ImageModelRecipe = ImageModelRecipe()
    augment: ImageAugmentRecipe = ImageAugmentRecipe()
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    crop_pct: float = Field(default=1.0, gt=0, le=1)
    init: Path | None = None
    train: TrainRecipe = TrainRecipe(folds=0)

    @model_validator(mode="after")
    def _no_folds(self) -> VisionRecipe:
        if self.train.folds:
            raise ValueError("train.folds must be 0: images come with a validation set of their own")
        return self
