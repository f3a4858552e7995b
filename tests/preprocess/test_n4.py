import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from brainage.preprocess.n4 import N4BiasCorrectiond


def spread_in_white_matter(array, inside):
    return float(np.std(array[inside]) / np.mean(array[inside]))


def test_a_known_field_is_removed_and_the_anatomy_stays(template):
    clean = template.get_fdata(dtype=np.float32)
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in clean.shape), indexing="ij")
    field = np.exp(0.35 * axes[0] + 0.3 * axes[1] * axes[2] - 0.25 * axes[2] ** 2).astype(np.float32)
    tensor = MetaTensor(torch.from_numpy(clean * field)[None], affine=torch.from_numpy(template.affine))
    result = N4BiasCorrectiond("image", shrink_mm=8)({"image": tensor})["image"]
    corrected = result[0].numpy()
    white = clean > np.percentile(clean[clean > 0], 75)
    before = spread_in_white_matter(clean * field / clean.clip(1), white)
    after = spread_in_white_matter(corrected / clean.clip(1), white)
    assert before > 0.1
    assert after < 0.4 * before
    assert (corrected[clean == 0] == 0).all()
    assert np.corrcoef(corrected[clean > 0], clean[clean > 0])[0, 1] > 0.95
    assert torch.equal(result.affine, tensor.affine)


def test_within_a_mask_the_rest_does_not_steer_the_field() -> None:
    """A brain-like ball of even brightness under a ramp, beside bright fat without it."""
    x, y, z = np.indices((40, 40, 40)) - 19.5
    ball = (x**2 + y**2 + z**2) < 15**2
    rng = np.random.default_rng(0)
    tissue = 400 + 10 * rng.standard_normal(ball.shape)
    data = np.where(ball, tissue * (1 + 0.02 * z), np.where(np.abs(x) > 17, 1000, 20)).astype(np.float32)
    affine = torch.diag(torch.tensor([4.0, 4.0, 4.0, 1.0], dtype=torch.float64))
    scan = {
        "image": MetaTensor(torch.from_numpy(data)[None], affine=affine),
        "brain_mask": MetaTensor(torch.from_numpy(ball.astype(np.uint8))[None], affine=affine),
        "stripped": False,
    }
    fitted = N4BiasCorrectiond("image", mask_key="brain_mask")(scan)["image"][0].numpy()[ball]
    before = data[ball]
    assert fitted.std() / fitted.mean() < 0.3 * before.std() / before.mean()
    untouched = N4BiasCorrectiond("image", mask_key="brain_mask")(scan | {"stripped": True})
    assert untouched["image"] is scan["image"]


def test_the_inverse_gives_the_scan_back(template):
    values = template.get_fdata(dtype=np.float32)[::2, ::2, ::2] * 3
    affine = torch.from_numpy(template.affine @ np.diag([2.0, 2.0, 2.0, 1.0]))
    scan = {"image": MetaTensor(torch.from_numpy(np.ascontiguousarray(values))[None], affine=affine)}
    scan |= {"brain_mask": MetaTensor((scan["image"] > 0).to(torch.uint8), affine=affine), "stripped": False}
    steps = [N4BiasCorrectiond("image"), N4BiasCorrectiond("image", mask_key="brain_mask")]
    once = steps[0](scan)
    twice = steps[1](once)
    assert [len(data["image_log_bias"]) for data in (once, twice)] == [1, 2]
    assert not torch.equal(once["image"], twice["image"])
    back = steps[0].inverse(steps[1].inverse(twice))
    assert back["image_log_bias"] == ()
    np.testing.assert_allclose(back["image"].numpy(), scan["image"].numpy(), rtol=1e-5)


@pytest.mark.parametrize("padding", [[(20, 20), (5, 30), (0, 25)], [(0, 0), (0, 0), (30, 0)]])
def test_air_around_the_brain_does_not_change_the_field(template, padding):
    clean = template.get_fdata(dtype=np.float32)[::2, ::2, ::2]
    ramp = np.exp(np.linspace(-0.3, 0.3, clean.shape[2], dtype=np.float32))
    fields = []
    for width in ([(0, 0)] * 3, padding):
        values = np.pad(clean * ramp, width)
        affine = np.diag([4.0, 4.0, 4.0, 1.0])
        tensor = MetaTensor(torch.from_numpy(values)[None], affine=torch.from_numpy(affine))
        result = N4BiasCorrectiond("image")({"image": tensor})["image"][0].numpy()
        box = tuple(
            slice(before, before + size) for (before, _), size in zip(width, clean.shape, strict=True)
        )
        fields.append(result[box])
    inside = clean > 0
    np.testing.assert_allclose(fields[1][inside], fields[0][inside], rtol=2e-3)
