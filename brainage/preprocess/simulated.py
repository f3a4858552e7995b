"""Simulated brains as the chain would leave them, without its slow steps."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from brainage.data.simulated_scan import SimulatedScan, simulate_scan
from brainage.preprocess.normalize import NormalizeIntensityd
from brainage.preprocess.resample import ResampleToModelGridd


def simulated_volumes(ages: Sequence[float], seed: int = 0) -> list[np.ndarray]:
    """Normalised volumes (80, 96, 80) of simulated brains on the model grid; the same for the same arguments.

    Their pose is known, so nothing is registered, stripped or corrected for bias; resampling and intensity
    normalisation are the chain's own.

    Args:
        ages: years, one brain each.
        seed: of what is random in them.
    """
    return [volume_of(simulate_scan(age, "FM"[index % 2], index, seed)) for index, age in enumerate(ages)]


def volume_of(scan: SimulatedScan) -> np.ndarray:
    """The normalised volume (80, 96, 80) of a simulated scan on the model grid."""
    values = np.asarray(scan.image.dataobj, dtype=np.float32)
    image = MetaTensor(torch.from_numpy(values)[None], affine=torch.from_numpy(scan.image.affine))
    data: dict[Hashable, Any] = {
        "image": image,
        "brain_mask": MetaTensor(torch.from_numpy(values > 0)[None].float(), affine=image.affine),
        "native_to_mni": np.linalg.inv(scan.mni_to_native),
    }
    volume = NormalizeIntensityd()(ResampleToModelGridd()(data))["volume"]
    return volume[0].cpu().numpy()
