import numpy as np
import pytest

from brainage.anatomy.atlas import GROUPS, Atlas
from brainage.anatomy.grid import MODEL_GRID
from brainage.anatomy.regions import to_patches, token_overlap
from brainage.errors import ConfigError


def test_shares_are_those_of_a_loop_over_patches(atlas):
    patch = 16
    shares = token_overlap(atlas, patch)
    x, y, z = (size // patch for size in MODEL_GRID.shape)
    token = 0
    for i in range(x):
        for j in range(y):
            for k in range(z):
                cut = tuple(slice(n * patch, (n + 1) * patch) for n in (i, j, k))
                block = atlas.labels[cut]
                for r, index in enumerate(atlas.regions["index"]):
                    assert shares.region_share_TR[token, r] == pytest.approx((block == index).mean())
                assert shares.brain_T[token] == ((block > 0).mean() >= 0.02)
                token += 1


def test_shapes_groups_and_sums(atlas):
    shares = token_overlap(atlas)
    assert shares.brain_T.shape == (1200,)
    assert shares.region_share_TR.shape == (1200, 28)
    assert shares.group_names == GROUPS
    assert shares.region_share_TR.dtype == shares.group_share_TG.dtype == np.float32
    np.testing.assert_allclose(
        shares.group_share_TG.sum(axis=1), to_patches(atlas.labels > 0, 8).mean(axis=1), atol=1e-6
    )
    assert 650 < shares.brain_T.sum() < 750
    # Each group has tokens to itself or nearly so, for its expert to work on.
    assert ((shares.group_share_TG > 0.1).sum(axis=0) >= 16).all()


def test_left_regions_are_in_the_tokens_of_the_left(atlas):
    shares = token_overlap(atlas)
    by_x = shares.region_share_TR.reshape(10, 120, 28).sum(axis=1)
    left = [name.endswith(" L") for name in shares.region_names]
    assert by_x[5:, left].sum() == 0
    assert by_x[:5, left].sum() > 0


def test_groups_of_an_atlas_of_ones_own_keep_the_order_of_the_table(atlas):
    regions = atlas.regions[:3].assign(group=["zeta", "occipital", "alpha"])
    labels = np.where(atlas.labels <= 3, atlas.labels, 0)
    shares = token_overlap(Atlas(labels, atlas.affine, regions, "MNI", "own"))
    assert shares.group_names == ("occipital", "zeta", "alpha")


@pytest.mark.parametrize("patch", [0, 7, 32])
def test_a_patch_that_does_not_tile_the_grid_is_refused(atlas, patch):
    with pytest.raises(ConfigError, match="must divide"):
        token_overlap(atlas, patch)
