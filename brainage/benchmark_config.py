"""The YAML recipes of comparisons: contestants trained and measured on the same folds."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from brainage.config import AtlasRecipe, ModelRecipe, PreprocessRecipe, Recipe, TrainRecipe

NETWORKS = ("transformer", "sfcn")
_BUDGET = ("epochs", "lr", "weight_decay")


class SfcnRecipe(Recipe):
    """SFCN (Peng et al. 2021), see ``brainage.models.sfcn``.

    Attributes:
        channels: of the blocks that each halve the volume.
        last: channels of the last block, which mixes channels only.
        dropout: before the output layer.
        youngest, oldest: ends of the age bins, years.
        bin_years: width of a bin.
        sigma: standard deviation of a soft label, years.
    """

    channels: tuple[int, ...] = Field(default=(32, 64, 128, 256, 256), min_length=1)
    last: int = Field(default=64, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    youngest: float = 14.0
    oldest: float = 100.0
    bin_years: float = Field(default=2.0, gt=0)
    sigma: float = Field(default=2.0, gt=0)

    @model_validator(mode="after")
    def _whole_bins(self) -> SfcnRecipe:
        bins = (self.oldest - self.youngest) / self.bin_years
        if bins < 2 or abs(bins - round(bins)) > 1e-6:
            raise ValueError("bin_years must divide the range from youngest to oldest into two bins or more")
        return self


class Contestant(Recipe):
    """What is compared: a way to predict age, and where it departs from the recipe's common settings.

    Attributes:
        label: in tables; its name where not given.
        kind: ``transformer`` (ERMoE-ba and what shares its frame), ``sfcn``, ``voxel_ridge``,
            ``region_ridge``, ``region_gp`` or ``mean``.
        model: settings of ``ModelRecipe`` that differ.
        sfcn: of an SFCN.
        train: ``epochs``, ``lr`` and ``weight_decay`` where they differ.
        regions: ``random`` deals the tokens' regional priors out anew, so that regional experts are as large
            as before and mean nothing anatomically.
    """

    label: str = ""
    kind: Literal["transformer", "sfcn", "voxel_ridge", "region_ridge", "region_gp", "mean"] = "transformer"
    model: dict[str, Any] = Field(default_factory=dict)
    sfcn: SfcnRecipe = SfcnRecipe()
    train: dict[str, float] = Field(default_factory=dict)
    regions: Literal["anatomical", "random"] = "anatomical"

    @property
    def is_network(self) -> bool:
        """Whether seeds matter to it."""
        return self.kind in NETWORKS

    @model_validator(mode="after")
    def _known_budget(self) -> Contestant:
        if other := sorted(set(self.train) - set(_BUDGET)):
            raise ValueError(f"train may change {', '.join(_BUDGET)} alone, not {', '.join(other)}")
        return self


class BenchmarkRecipe(Recipe):
    """Contestants on one cohort: the same folds, volumes, augmentation and batches for all.

    Attributes:
        name: of the comparison.
        include, preprocess, atlas: as in ``BrainAgeRecipe``.
        pool: edge, in voxels of the model grid, of the blocks that are averaged to one voxel of the networks'
            input; 1 for none. ``model.patch`` counts the voxels after it.
        copies: augmented copies of each scan that every network of a seed learns from, one after the other.
        last_probe: whether a transformer's head is fitted once more at the end, in closed form to all
            copies, as ``brainage train`` does it.
        seeds: of the networks' weights, batches and copies.
        reference: the contestant that the others are compared with.
        claim: by how much the reference's error should be below the best other one's, as a share of that;
            None for no such claim.
        model, train: common settings; ``train.seed`` is the seed of the folds.
        contestants: by name.
    """

    name: str
    include: dict[str, float | str] = Field(default_factory=dict)
    preprocess: PreprocessRecipe = PreprocessRecipe()
    atlas: AtlasRecipe = AtlasRecipe()
    pool: int = Field(default=1, ge=1)
    copies: int = Field(default=4, ge=1)
    last_probe: bool = False
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    reference: str = "ermoe_ba"
    claim: float | None = Field(default=None, ge=0, lt=1)
    model: ModelRecipe = ModelRecipe()
    train: TrainRecipe = TrainRecipe()
    contestants: dict[str, Contestant]

    def model_of(self, contestant: Contestant) -> ModelRecipe:
        """The network of a contestant of kind ``transformer``."""
        return ModelRecipe.model_validate(self.model.model_dump(mode="json") | contestant.model)

    def train_of(self, contestant: Contestant, seed: int) -> TrainRecipe:
        """How a contestant is fitted with that seed."""
        content = self.train.model_dump(mode="json") | contestant.train | {"seed": seed}
        return TrainRecipe.model_validate(content)

    def seeds_of(self, contestant: Contestant) -> tuple[int, ...]:
        """All seeds for a network; the first one for what is computed in closed form."""
        return self.seeds if contestant.is_network else self.seeds[:1]

    @model_validator(mode="after")
    def _consistent(self) -> BenchmarkRecipe:
        if self.reference not in self.contestants:
            raise ValueError(f"reference ({self.reference}) must be one of the contestants")
        if self.train.folds < 2:
            raise ValueError("train.folds must be at least 2")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must differ")
        for name, contestant in self.contestants.items():
            if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
                raise ValueError(f"contestants: {name!r} may hold lower-case letters, digits and _ alone")
            try:
                self.model_of(contestant)
                self.train_of(contestant, self.seeds[0])
            except ValueError as error:
                raise ValueError(f"contestants.{name}: {error}") from error
        return self
