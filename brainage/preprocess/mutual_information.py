"""Registration by mutual information, the same way each time, on any number of threads."""

from __future__ import annotations

import SimpleITK as sitk


def mutual_information(mask: sitk.Image | None = None, share: float = 0.25) -> sitk.ImageRegistrationMethod:
    """Mattes mutual information (Mattes et al. 2003, doi:10.1109/TMI.2003.809072) with linear interpolation.

    Args:
        mask: voxels of the fixed image to compare; all without it.
        share: of these voxels that is looked at.
    """
    method = sitk.ImageRegistrationMethod()
    # The threads' sums would be added in the order in which they end.
    method.SetNumberOfWorkUnits(1)
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    # ITK shifts even regular samples at random, and seeds that by the clock unless told otherwise.
    method.SetMetricSamplingPercentage(share, seed=1)
    if mask is not None:
        method.SetMetricFixedMask(mask)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def register(
    fixed: sitk.Image,
    moving: sitk.Image,
    start: sitk.Transform,
    shrink: tuple[int, ...],
    sigmas_mm: tuple[float, ...],
    mask: sitk.Image | None = None,
    *,
    step: float = 1.0,
    least_step: float = 1e-3,
    iterations: int = 100,
) -> tuple[sitk.Transform, float]:
    """The transform from points of ``fixed`` to points of ``moving``, of the kind of ``start``.

    Args:
        fixed, moving: images to align.
        start: where to begin.
        shrink: factors of the pyramid's levels, coarse to fine.
        sigmas_mm: smoothing of each level.
        mask: see :func:`mutual_information`.
        step, least_step: first and last step of the gradient descent.
        iterations: at most, on each level.

    Returns:
        The transform, and minus the mutual information it reaches.
    """
    method = mutual_information(mask)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=step, minStep=least_step, numberOfIterations=iterations, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel(sigmas_mm)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=False)
    result = method.Execute(fixed, moving)
    if isinstance(result, sitk.CompositeTransform):
        result = result.GetNthTransform(0)
    return result, float(method.GetMetricValue())
