"""The material of a comparison on disk: every contestant, process and later call reads the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from monai.utils import convert_to_tensor
from torch import Tensor

from brainage.anatomy.atlas import load_atlas
from brainage.anatomy.grid import MODEL_GRID
from brainage.benchmark_config import BenchmarkRecipe
from brainage.data.augment import KEY, augmentation
from brainage.data.datasets import AgedScan
from brainage.errors import ConfigError
from brainage.files import replacing
from brainage.models.region_regression import region_tissues
from brainage.models.voxel_ridge import smoothed_voxels
from brainage.train.cohort import Cohort
from brainage.train.cross_validate import fold_table
from brainage.train.fit import Progress, quiet


@dataclass(frozen=True, eq=False)
class BenchmarkData:
    """Scans of a comparison, their folds, and what is computed from them once.

    Attributes:
        folder: of the arrays ``volumes`` (S, X, Y, Z), ``voxels`` and ``regions`` (S, F), ``copies-<seed>``
            (C * S, X, Y, Z).
        table: ``participant_id, session_id, age, fold``, one row a scan.
        fingerprint: of ids, ages and volumes, 16 digits.
    """

    folder: Path
    table: pd.DataFrame
    fingerprint: str

    def array(self, name: str) -> np.ndarray:
        """An array of the folder, mapped into memory."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    def copies(self, seed: int) -> np.ndarray:
        """The augmented copies of that seed (C, S, X, Y, Z)."""
        copies = self.array(f"copies-{seed}")
        return copies.reshape(-1, len(self.table), *copies.shape[1:])

    def scans(self, rows: np.ndarray) -> list[AgedScan]:
        """The networks' input volumes of the scans in these rows of the table."""
        volumes, people = self.array("volumes"), self.table.iloc[rows]
        columns = (people[name] for name in ("participant_id", "session_id", "age"))
        return [
            AgedScan(person, session, float(age), torch.from_numpy(np.array(volumes[row]))[None])
            for row, person, session, age in zip(rows, *columns, strict=True)
        ]


def prepare(
    cohort: Cohort, recipe: BenchmarkRecipe, seeds: Sequence[int], out: Path, progress: Progress = quiet
) -> BenchmarkData:
    """Compute what ``out/cache`` lacks: pooled volumes, features of the regressions, copies for ``seeds``.

    The copies are those of :func:`~brainage.data.augment.augmentation` on the model grid, then pooled. They
    are kept: after a change of the augmentation another folder is needed.

    Raises:
        ConfigError: too few subjects for the folds, or blocks that do not tile the model grid.
    """
    if any(size % recipe.pool for size in MODEL_GRID.shape):
        raise ConfigError("pool", recipe.pool, f"must divide each side of the model grid {MODEL_GRID.shape}")
    table = fold_table(cohort.scans, recipe.train.folds, recipe.train.seed)
    key = hashlib.sha256(f"{cohort.fingerprint} {recipe.pool} {recipe.copies}".encode()).hexdigest()[:8]
    data = BenchmarkData(out / "cache" / key, table, cohort.fingerprint[:16])
    volumes = [scan.volume for scan in cohort.scans]
    count = len(volumes)
    _keep(data.folder / "volumes.npy", (_pooled(volume, recipe.pool) for volume in volumes), count)
    spacing = MODEL_GRID.spacing
    _keep(
        data.folder / "voxels.npy", (smoothed_voxels(volume[0].numpy(), spacing) for volume in volumes), count
    )
    atlas = load_atlas(recipe.atlas.path, recipe.atlas.table)
    indices = atlas.regions["index"].to_numpy()
    tissues = (region_tissues(volume[0].numpy(), atlas.labels, indices) for volume in volumes)
    _keep(data.folder / "regions.npy", tissues, count)
    for seed in seeds:
        copies = _copies(volumes, recipe, seed, progress)
        _keep(data.folder / f"copies-{seed}.npy", copies, recipe.copies * count)
    return data


def _copies(
    volumes: Sequence[Tensor], recipe: BenchmarkRecipe, seed: int, progress: Progress
) -> Iterator[np.ndarray]:
    change = augmentation()
    change.set_random_state(seed)
    for _ in progress(range(recipe.copies), f"Augmented copies, seed {seed}"):
        for volume in volumes:
            changed = convert_to_tensor(change({KEY: volume.float()})[KEY], track_meta=False)
            yield _pooled(changed, recipe.pool)


def _pooled(volume_1XYZ: Tensor, edge: int) -> np.ndarray:
    """Means of blocks of ``edge``^3 voxels, (X, Y, Z) half precision."""
    return F.avg_pool3d(volume_1XYZ.float(), edge)[0].half().numpy()


def _keep(path: Path, rows: Iterator[np.ndarray], count: int) -> None:
    """Write ``count`` arrays of one shape to a file, one at a time, unless it is there."""
    if path.exists():
        return
    first = next(rows)
    with replacing(path) as partial:
        file = np.lib.format.open_memmap(partial, "w+", first.dtype, (count, *first.shape))
        file[0] = first
        for number, row in enumerate(rows, 1):
            file[number] = row
        file.flush()
        del file
