"""The YAML recipes, read all at once: every error of a file is reported in one go."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from brainage.errors import ConfigError, InputError


class Recipe(BaseModel):
    """Base of all recipes: immutable, and an unknown key is an error rather than ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


RecipeT = TypeVar("RecipeT", bound=Recipe)


class PreprocessRecipe(Recipe):
    """What may vary in preprocessing.

    Attributes:
        brain_extraction: ``auto`` strips heads and keeps the mask of stripped scans; ``always`` and
            ``never`` overrule the detection.
        n4_shrink_mm: voxel edge at which the bias field is estimated, mm.
    """

    brain_extraction: Literal["auto", "always", "never"] = "auto"
    n4_shrink_mm: float = Field(default=4.0, gt=0, le=10)


class ModelRecipe(Recipe):
    """ERMoE-ba.

    Attributes:
        patch: edge of a token, voxels of the 2 mm model grid.
        dim, depth, num_heads, hidden_dim: of the vision transformer.
        moe_blocks: indices of the blocks whose feed-forward layer is a mixture.
        free_experts: experts open to every token, besides one regional expert for each group of the atlas.
        router: ``ermoe``, or one that it is compared with.
        rank: columns of a routing basis (``ermoe``, ``emoe``).
        top_k: experts a token; ``soft`` gets as many slots as that makes pairs, ``dense`` as much width.
        threshold, coupling, orthogonalization, fallback: of ``ERMoE``; ``emoe`` uses the third.
        context: what a token is compared with, see ``VisionTransformer``.
        prior: how the atlas limits regional experts: by weighting scores, by a hard mask, or not at all.
        dropout, drop_path: regularisation.
    """

    patch: int = Field(default=8, ge=2)
    dim: int = Field(default=128, ge=8)
    depth: int = Field(default=4, ge=1)
    num_heads: int = Field(default=4, ge=1)
    hidden_dim: int = Field(default=256, ge=8)
    moe_blocks: tuple[int, ...] = (2, 3)
    free_experts: int = Field(default=4, ge=0)
    router: Literal["ermoe", "emoe", "vmoe", "cosine", "soft", "dense"] = "ermoe"
    rank: int = Field(default=8, ge=1)
    top_k: int = Field(default=2, ge=1)
    threshold: float = Field(default=0.0, ge=-1, le=1)
    coupling: Literal["shared", "joint", "independent"] = "shared"
    orthogonalization: Literal["cayley", "qr"] = "cayley"
    fallback: Literal["best", "skip"] = "best"
    context: Literal["attention_mean", "attention_output"] = "attention_mean"
    prior: Literal["soft", "hard", "none"] = "hard"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    drop_path: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> ModelRecipe:
        if self.dim % self.num_heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of num_heads ({self.num_heads})")
        if any(not 0 <= block < self.depth for block in self.moe_blocks):
            raise ValueError(f"moe_blocks must lie between 0 and depth - 1 ({self.depth - 1})")
        return self


class AtlasRecipe(Recipe):
    """The parcellation whose groups get regional experts; the built-in one unless ``path`` is given.

    Attributes:
        path: NIfTI label volume in MNI152 space.
        table: its BIDS ``dseg.tsv``.
    """

    path: Path | None = None
    table: Path | None = None


class TrainRecipe(Recipe):
    """How a model is fitted.

    Attributes:
        folds: of the cross-validation that measures the model and calibrates its intervals; 0 for none.
        epochs, batch_size: passes over the training subjects and scans a step.
        lr, weight_decay, warmup: AdamW with linear warm-up (share of all steps) and cosine decay.
        ema: decay of the averaged weights that are kept.
        seed: of initialisation, order and augmentation.
        precision: Fabric's precision; ``bf16-mixed`` about doubles the speed on recent CPUs and GPUs.
        checkpoint_every: epochs between checkpoints to resume from.
        workers: processes that augment.
    """

    folds: int = Field(default=5, ge=0)
    epochs: int = Field(default=60, ge=1)
    batch_size: int = Field(default=8, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.99, ge=0, lt=1)
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    checkpoint_every: int = Field(default=5, ge=1)
    workers: int = Field(default=1, ge=0)


class BrainAgeRecipe(Recipe):
    """One training of ERMoE-ba: data, model and optimisation in one file.

    Attributes:
        name: of the model.
        include: columns of ``participants.tsv`` with the value a subject must have to be learned from.
    """

    name: str = "ermoe-ba"
    include: dict[str, float | str] = Field(default_factory=dict)
    preprocess: PreprocessRecipe = PreprocessRecipe()
    atlas: AtlasRecipe = AtlasRecipe()
    model: ModelRecipe = ModelRecipe()
    train: TrainRecipe = TrainRecipe()


def load_recipe(path: str | PathLike[str], kind: type[RecipeT]) -> RecipeT:
    """The recipe in a YAML file.

    Raises:
        InputError: no such file, or no YAML mapping.
        ConfigError: settings break a rule; the sentence lists all of them.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(path, "no such file", "a YAML recipe", "check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(path, "text that is no YAML", "a YAML recipe", "correct the file") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise InputError(path, f"a {type(content).__name__}", "a mapping of settings", "correct the file")
    return parse_recipe(content, kind)


def parse_recipe(content: dict[str, Any], kind: type[RecipeT]) -> RecipeT:
    """The recipe in a mapping, such as the one a checkpoint carries.

    Raises:
        ConfigError: settings break a rule; the sentence lists all of them.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = error.errors()
        first = ".".join(map(str, faults[0]["loc"])) or kind.__name__
        rules = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or kind.__name__}: {fault['msg']}" for fault in faults
        )
        raise ConfigError(first, faults[0].get("input"), rules) from error
