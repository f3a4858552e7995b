"""Which parameters an optimiser should not decay."""

from __future__ import annotations

from torch import nn

from brainage.nn.stiefel import OrthonormalFrames
from brainage.nn.vit import LayerScale, VisionTransformer


def no_weight_decay_parameters(module: nn.Module) -> set[str]:
    """Names, as in ``module.named_parameters()``, of the parameters that take no weight decay.

    These are the orthonormal bases (their parameters are coordinates of a rotation: decay would turn them
    back towards where they began), biases, gains of norms, layer scales, position embeddings and scalars such
    as a temperature. The experts' spectra *are* decayed: since ``||U diag(s) V^T||_F = ||s||``, that is the
    decay of the weight itself.
    """
    names = set()
    for prefix, part in module.named_modules():
        for name, parameter in part.named_parameters(recurse=False):
            whole = isinstance(part, OrthonormalFrames | nn.LayerNorm | nn.BatchNorm2d | LayerScale)
            position = isinstance(part, VisionTransformer) and name.startswith("position")
            if whole or position or parameter.ndim == 0 or name.startswith("bias"):
                names.add(f"{prefix}.{name}" if prefix else name)
    return names
