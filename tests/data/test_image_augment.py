"""Augmentation of batches of images."""

from __future__ import annotations

import pytest
import torch

from brainage.data.image_augment import augment, mix
from brainage.vision_config import ImageAugmentRecipe

NOTHING = ImageAugmentRecipe(scale=1, aspect=1, flip=0)
FILL = torch.tensor([10.0, 20.0, 30.0])


def batch(size=16):
    return torch.rand(32, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255


def vary(images, recipe, seed=0):
    return augment(images, recipe, torch.Generator().manual_seed(seed), FILL)


def test_nothing_asked_nothing_changed():
    torch.testing.assert_close(vary(batch(), NOTHING), batch(), atol=1e-3, rtol=0)


def test_flip_is_exact():
    always = NOTHING.model_copy(update={"flip": 1.0})
    torch.testing.assert_close(vary(batch(), always), batch().flip(-1), atol=1e-3, rtol=0)


def test_about_half_are_flipped_each_by_its_own_draw():
    flipped = vary(batch(), NOTHING.model_copy(update={"flip": 0.5}))
    changed = (flipped - batch()).abs().amax(dim=(1, 2, 3)) > 1
    assert 8 <= int(changed.sum()) <= 24


def test_crops_lie_within_the_image_and_keep_the_area():
    # A picture of its own coordinates shows what was cropped.
    edge = torch.linspace(-1, 1, 64)
    images = torch.stack(torch.meshgrid(edge, edge, indexing="ij")).expand(64, 2, 64, 64)
    recipe = ImageAugmentRecipe(scale=0.5, aspect=4 / 3, flip=0)
    crops = augment(images, recipe, torch.Generator().manual_seed(1), torch.zeros(2))
    height = (crops[:, 0, -1] - crops[:, 0, 0]).mean(-1) / 2
    width = (crops[:, 1, :, -1] - crops[:, 1, :, 0]).mean(-1) / 2
    assert (width * height).min() > 0.4
    assert (width * height).std() > 0.05
    assert (width / height).max() < 1.5
    assert crops.abs().max() <= 1


def test_erasing_fills_one_rectangle():
    recipe = NOTHING.model_copy(update={"erasing": 1.0})
    erased = vary(batch(), recipe)
    inside = (erased == FILL.view(1, 3, 1, 1)).all(dim=1)
    share = inside.float().mean(dim=(1, 2))
    assert share.max() < 0.45
    assert share.mean() > 0.05
    rows, columns = inside.any(dim=2), inside.any(dim=1)
    assert torch.equal(inside, rows[:, :, None] & columns[:, None, :])


def test_the_same_draws_give_the_same_images():
    recipe = ImageAugmentRecipe(erasing=0.5)
    assert torch.equal(vary(batch(), recipe, 3), vary(batch(), recipe, 3))
    assert not torch.equal(vary(batch(), recipe, 3), vary(batch(), recipe, 4))


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0])
def test_mixup_mixes_images_and_targets_alike(alpha):
    targets = torch.eye(32)
    # Every image holds its own number, so its mean tells the mixture.
    images = torch.arange(32.0).view(32, 1, 1, 1).expand(32, 3, 4, 4)
    recipe = ImageAugmentRecipe(mixup=alpha)
    mixed, target = mix(images, targets, recipe, torch.Generator().manual_seed(0))
    torch.testing.assert_close(target.sum(dim=1), torch.ones(32))
    torch.testing.assert_close(mixed[:, 0, 0, 0], target @ torch.arange(32.0))
    assert (alpha == 0) == torch.equal(mixed, images)


def test_cutmix_pastes_as_much_as_the_targets_say():
    images = torch.stack([torch.full((3, 16, 16), float(value)) for value in range(6)])
    targets = torch.eye(6)
    recipe = ImageAugmentRecipe(cutmix=1.0)
    pasted_any = False
    for seed in range(8):
        mixed, target = mix(images, targets, recipe, torch.Generator().manual_seed(seed))
        for index in range(6):
            own = (mixed[index] == index).float().mean()
            torch.testing.assert_close(target[index, index], own)
            pasted_any |= bool(own < 1)
        torch.testing.assert_close(target.sum(1), torch.ones(6))
    assert pasted_any


def test_turns_are_quarter_turns():
    images = torch.rand(40, 3, 8, 8)
    recipe = ImageAugmentRecipe(scale=1, aspect=1, flip=0, turns=True)
    turned = augment(images, recipe, torch.Generator().manual_seed(0), torch.zeros(3))
    seen = set()
    for before, after in zip(images, turned, strict=True):
        quarters = [k for k in range(4) if torch.allclose(after, before.rot90(k, (1, 2)), atol=1e-4)]
        assert len(quarters) == 1
        seen.add(quarters[0])
    assert seen == {0, 1, 2, 3}
