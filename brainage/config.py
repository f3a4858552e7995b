"""The YAML recipes, read all at once: every error of a file is reported in one go."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from brainage.errors import ConfigError, InputError


class Recipe(BaseModel):
    """Base of all recipes: immutable, and an unknown key is an error rather than ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


RecipeT = TypeVar("RecipeT", bound=Recipe)


class QcLimit(Recipe):
    """Range of a quality figure; ``null`` for no bound.

    Attributes:
        good: outside of it, the scan is used with a warning.
        usable: outside of it, the scan is refused.
    """

    good: tuple[float | None, float | None]
    usable: tuple[float | None, float | None]

    @model_validator(mode="after")
    def _nested(self) -> QcLimit:
        low, high = (float("-inf") if ends[0] is None else ends[0] for ends in (self.usable, self.good))
        if low > high:
            raise ValueError("what is good must be usable: the lower bound of good is below that of usable")
        low, high = (float("inf") if ends[1] is None else ends[1] for ends in (self.good, self.usable))
        if low > high:
            raise ValueError("what is good must be usable: the upper bound of good is above that of usable")
        return self


def _limit(good: tuple[float | None, float | None], usable: tuple[float | None, float | None]) -> QcLimit:
    return QcLimit(good=good, usable=usable)


class QcRecipe(Recipe):
    """What makes a scan doubtful or unusable; ``null`` switches a limit off.

    The figures are described in ``preprocess/qc.py``, ``quality_image.py`` and ``quality_mirror.py``; what
    the limits rest on is in ``docs/quality_control.md``.
    """

    head_ncc: QcLimit | None = _limit((0.7, None), (0.5, None))
    registration_ncc: QcLimit | None = _limit((0.45, None), (0.33, None))
    brain_volume_ml: QcLimit | None = _limit((700, 2300), (300, 3500))
    mask_in_template: QcLimit | None = _limit((0.75, None), (0.55, None))
    template_covered: QcLimit | None = _limit((0.90, None), (0.6, None))
    brain_in_view: QcLimit | None = _limit((0.99, None), (0.85, None))
    cut_cm2: QcLimit | None = _limit((None, 60), (None, None))
    empty_in_mask: QcLimit | None = _limit((None, 0.08), (None, 0.25))
    scale: QcLimit | None = _limit((0.7, 2.2), (0.4, 3.5))
    stretch: QcLimit | None = _limit((None, 1.4), (None, 2.0))
    rotation_deg: QcLimit | None = _limit((None, 45), (None, None))
    largest_voxel_mm: QcLimit | None = _limit((None, 3.0), (None, None))
    grey_white_ratio: QcLimit | None = _limit((0.45, 0.90), (None, None))
    cjv: QcLimit | None = _limit((None, 0.6), (None, None))
    snr_wm: QcLimit | None = _limit((8, None), (None, None))
    inu_range: QcLimit | None = _limit((None, 1.0), (None, None))
    efc: QcLimit | None = _limit((None, 0.85), (None, None))
    qi_1: QcLimit | None = _limit((None, 0.1), (None, None))
    gsr: QcLimit | None = _limit((None, 0.02), (None, None))
    left_right: QcLimit | None = _limit((-0.5, None), (None, None))


class PreprocessRecipe(Recipe):
    """What may vary in preprocessing.

    ``mask`` and ``transform`` are templates of paths, from the folder of the scan on, in which
    ``{participant_id}``, ``{session_id}`` (both with their prefix) and ``{name}`` (that of the scan's file,
    without ``_T1w`` and ending) are filled in; every scan must have the file.

    Attributes:
        brain_extraction: ``auto`` strips heads and keeps the mask of stripped scans; ``always`` and
            ``never`` overrule the detection.
        bias_correction: False for scans that were corrected before.
        registration: False for scans whose world is MNI152NLin2009aSym already.
        mask: brain masks that take the place of brain extraction.
        transform: affine ITK transforms that take the place of registration.
        n4_shrink_mm: voxel edge at which the bias field is estimated, mm.
        qc: what makes a scan doubtful or unusable; it changes no volume.
    """

    brain_extraction: Literal["auto", "always", "never"] = "auto"
    bias_correction: bool = True
    registration: bool = True
    mask: str | None = None
    transform: str | None = None
    n4_shrink_mm: float = Field(default=4.0, gt=0, le=10)
    qc: QcRecipe = QcRecipe()

    @field_validator("mask", "transform")
    @classmethod
    def _is_template(cls, template: str | None) -> str | None:
        try:
            if template is not None and not template.format(participant_id="", session_id="", name="x"):
                raise ValueError("must name a file")
        except (KeyError, IndexError, AttributeError) as error:
            raise ValueError("may use {participant_id}, {session_id} and {name} alone") from error
        return template

    @model_validator(mode="after")
    def _one_way_each(self) -> PreprocessRecipe:
        if self.mask and self.brain_extraction != "auto":
            raise ValueError(f"mask and brain_extraction: {self.brain_extraction} exclude each other")
        if self.transform and not self.registration:
            raise ValueError("transform and registration: false exclude each other")
        return self


class RouterRecipe(Recipe):
    """Settings that some routers have of their own; null for the router's default.

    Attributes:
        noise_std: ``vmoe``, ``cosine``: noise on the logits in training, over the number of experts.
        capacity_factor: ``vmoe``: tokens that an expert takes at most, relative to an even load. What comes
            later in a batch passes it by, so predictions then depend on the batch.
        temperature: ``cosine`` (at the start; it is learned) and ``emoe``: of the softmax.
        normalize_gates: ``emoe``, ``vmoe``, ``cosine``: whether the gates of a token sum to 1.
        projection_dim: ``cosine``: width of the space of its cosines.
    """

    noise_std: float | None = Field(default=None, ge=0)
    capacity_factor: float | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, ge=0.01)
    normalize_gates: bool | None = None
    projection_dim: int | None = Field(default=None, ge=1)

    def given(self) -> dict[str, Any]:
        """Those that are set."""
        return self.model_dump(exclude_none=True)

    def check(self, router: str) -> None:
        """Raise ``ValueError`` if one is no setting of the router."""
        of_all = ("emoe", "vmoe", "cosine")
        routers = {"noise_std": of_all[1:], "capacity_factor": ("vmoe",), "temperature": ("emoe", "cosine")}
        routers |= {"normalize_gates": of_all, "projection_dim": ("cosine",)}
        for name in self.given():
            if router not in routers[name]:
                of = " and ".join(routers[name])
                raise ValueError(f"router_settings.{name} is a setting of {of}, not of the router {router}")


def router_field() -> Any:
    """The field ``router_settings``: left out of files where it is not set, as in those before it was."""
    return Field(default=None, exclude_if=lambda settings: settings is None)


class ModelRecipe(Recipe):
    """ERMoE-ba.

    Attributes:
        patch: edge of a token, voxels of the 2 mm model grid.
        cells: blocks along that edge whose tissues are described separately.
        dim, depth, num_heads, hidden_dim: of the vision transformer.
        moe_blocks: indices of the blocks whose feed-forward layer is a mixture.
        free_experts: experts open to every token, besides one regional expert for each group of the atlas.
        router: ``ermoe``, or one that it is compared with.
        rank: columns of a routing basis (``ermoe``: below ``dim``; ``emoe``: up to ``dim``).
        top_k: experts a token; ``soft`` gets as many slots as that makes pairs, ``dense`` as much width.
        threshold, coupling, fallback: of ``ERMoE``.
        orthogonalization: map that keeps the bases of ``ermoe`` and ``emoe`` orthonormal; ``none`` leaves
            them free (ablation).
        scores: what ``ermoe`` routes by: alignment with the experts' own bases (the paper's cosine, or
            ``aligned_energy``), or learned logits (ablation).
        balancing: weight of the balancing loss in training, averaged over the mixture blocks; 0 for none.
        context: what a token is compared with, see ``VisionTransformer``.
        prior: how the atlas limits regional experts: by weighting scores, by a hard mask, or not at all.
        dropout, drop_path: regularisation.
        layer_scale: where the gains of the residual branches start; null for none.
        router_settings: of the routers that ``ermoe`` is compared with.
    """

    patch: int = Field(default=8, ge=2)
    cells: int = Field(default=1, ge=1)
    dim: int = Field(default=128, ge=8)
    depth: int = Field(default=4, ge=1)
    num_heads: int = Field(default=4, ge=1)
    hidden_dim: int = Field(default=256, ge=8)
    moe_blocks: tuple[int, ...] = (2, 3)
    free_experts: int = Field(default=4, ge=0)
    router: Literal["ermoe", "emoe", "vmoe", "cosine", "soft", "dense"] = "ermoe"
    rank: int = Field(default=8, ge=1, validate_default=True)
    top_k: int = Field(default=2, ge=1)
    threshold: float = Field(default=0.0, ge=-1, lt=1)
    coupling: Literal["shared", "joint", "independent"] = "shared"
    orthogonalization: Literal["cayley", "qr", "none"] = "cayley"
    scores: Literal["eigenbasis", "aligned_energy", "learned"] = "eigenbasis"
    balancing: float = Field(default=0.0, ge=0)
    fallback: Literal["best", "skip"] = "best"
    context: Literal["attention_mean", "attention_output"] = "attention_mean"
    prior: Literal["soft", "hard", "none"] = "hard"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    layer_scale: float | None = Field(default=None, gt=0)
    router_settings: RouterRecipe | None = router_field()

    @field_validator("rank")
    @classmethod
    def _rank_below_dim(cls, rank: int, info: ValidationInfo) -> int:
        router, dim = info.data.get("router"), info.data.get("dim")
        if dim is not None and ((router == "ermoe" and rank >= dim) or (router == "emoe" and rank > dim)):
            rule = "smaller than dim" if router == "ermoe" else "at most dim"
            raise ValueError(f"must be {rule} ({dim}) for the router {router}")
        return rank

    @field_validator("scores", "balancing")
    @classmethod
    def _has_a_part(cls, value: str | float, info: ValidationInfo) -> str | float:
        router = info.data.get("router")
        if value == "learned" and router != "ermoe":
            raise ValueError(f"is an ablation of the router ermoe, not of {router}")
        if info.field_name == "balancing" and value and router in ("soft", "dense"):
            raise ValueError(f"must be 0 for the router {router}, which chooses no experts")
        return value

    @model_validator(mode="after")
    def _fits(self) -> ModelRecipe:
        if self.dim % self.num_heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of num_heads ({self.num_heads})")
        if any(not 0 <= block < self.depth for block in self.moe_blocks):
            raise ValueError(f"moe_blocks must lie between 0 and depth - 1 ({self.depth - 1})")
        if self.router_settings is not None:
            self.router_settings.check(self.router)
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
        epochs: passes over the training items.
        batch_size: items of one optimiser step, over all devices and micro-batches together, so that a recipe
            means the same training on any number of devices.
        lr, weight_decay, warmup: AdamW with linear warm-up (share of all steps) and cosine decay.
        layer_decay: ratio of the learning rates of a block and the one after it; 1 for one rate.
        ema: decay of the averaged weights that are kept.
        seed: of initialisation, order and augmentation.
        accelerator, devices, num_nodes: what to train on; ``devices`` counts those of one node.
        strategy: ``ddp`` keeps a whole model on every device, ``fsdp`` a share of it; ``auto`` is ``ddp`` on
            several devices.
        precision: Fabric's precision; ``bf16-mixed`` about doubles the speed on recent CPUs and GPUs.
        accumulate: micro-batches that a device's share of a batch is split into, to save memory.
        deterministic: only use algorithms that give the same bits every time.
        checkpoint_every: epochs between checkpoints to resume from, each with validation and routing.
        checkpoint_steps: optimiser steps between further checkpoints within an epoch; 0 for none.
        workers: processes that load and augment, for each device.
    """

    folds: int = Field(default=5, ge=0)
    epochs: int = Field(default=60, ge=1)
    batch_size: int = Field(default=8, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    ema: float = Field(default=0.99, ge=0, lt=1)
    seed: int = 0
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(default=1, ge=1)
    num_nodes: int = Field(default=1, ge=1)
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    accumulate: int = Field(default=1, ge=1)
    deterministic: bool = False
    checkpoint_every: int = Field(default=5, ge=1)
    checkpoint_steps: int = Field(default=0, ge=0)
    workers: int = Field(default=1, ge=0)

    @model_validator(mode="after")
    def _divides(self) -> TrainRecipe:
        shares = self.devices * self.num_nodes * self.accumulate
        if self.batch_size % shares:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of devices x num_nodes x accumulate "
                f"({shares}), since it counts the items of a whole optimiser step"
            )
        return self


class OtherScannersRecipe(Recipe):
    """How far a model was off on raw scans of other scanners than its training's, measured once it was made.

    Attributes:
        scans, sites: how many.
        mae, largest: mean and largest absolute error, years.
        site_gap: mean of predicted less true age at the site that was furthest off, years.
    """

    scans: int = Field(ge=1)
    sites: int = Field(ge=1)
    mae: float = Field(ge=0)
    largest: float = Field(ge=0)
    site_gap: float


class CardRecipe(Recipe):
    """What the model card says that a training cannot know.

    Attributes:
        cohort: who the subjects are.
        scanner: what they were scanned with, and where.
        citation: of the data.
        limits: sentences on what the data leave open.
        other_scanners: what is said beside every age; None where it was not measured.
    """

    cohort: str = ""
    scanner: str = ""
    citation: str = ""
    limits: tuple[str, ...] = ()
    other_scanners: OtherScannersRecipe | None = None


class BrainAgeTrainRecipe(TrainRecipe):
    """How ERMoE-ba is fitted.

    Attributes:
        probe_copies: augmented copies of the training scans that the final head is fitted to, beside the
            scans and their mirror images.
    """

    probe_copies: int = Field(default=6, ge=0)


class BrainAgeRecipe(Recipe):
    """One training of ERMoE-ba: data, model and optimisation in one file.

    Attributes:
        name: of the model.
        card: words for the model card.
        include: columns of ``participants.tsv`` with the value a subject must have to be learned from.
    """

    name: str = "ermoe-ba"
    card: CardRecipe = CardRecipe()
    include: dict[str, float | str] = Field(default_factory=dict)
    preprocess: PreprocessRecipe = PreprocessRecipe()
    atlas: AtlasRecipe = AtlasRecipe()
    model: ModelRecipe = ModelRecipe()
    train: BrainAgeTrainRecipe = BrainAgeTrainRecipe()


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
        field, value, rule = _fault(error.errors()[0])
        more = [str(ConfigError(*_fault(fault))).removesuffix(".") for fault in error.errors()[1:]]
        raise ConfigError(field, value, "; ".join([rule, *more])) from error


def _fault(fault: Mapping[str, Any]) -> tuple[str, Any, str]:
    """Field, value and rule of one of pydantic's errors."""
    rule = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        rule = "is no setting of this recipe"
    return ".".join(map(str, fault["loc"])) or "recipe", fault["input"], rule
