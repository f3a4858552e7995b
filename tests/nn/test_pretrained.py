"""A dense network loaded into eigenbases: exact where it fits, with the stated error where it does not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from brainage.errors import ConfigError
from brainage.nn import ERMoE, dense_weights, load_dense_weights
from brainage.nn.stiefel import OrthonormalFrames, orthonormality_error


def dense(dim, hidden, rank=None):
    """A dense network in float64, its weights cut to the given rank."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)).double()
    for linear in network[0], network[2]:
        left, values, right_t = torch.linalg.svd(linear.weight.data, full_matrices=False)
        values[len(values) if rank is None else rank :] = 0
        linear.weight.data = left * values @ right_t
        assert torch.linalg.matrix_rank(linear.weight.data) == min(dim, hidden, rank or dim)
    return network


def load(layer, network):
    weights = network[0].weight, network[0].bias, network[2].weight, network[2].bias
    return load_dense_weights(layer, *(weight.detach() for weight in weights))


def make_layer(coupling, dim=12, experts=3, rank=4, hidden=20, **settings):
    torch.manual_seed(0)
    return ERMoE(dim, experts, rank, hidden, coupling=coupling, threshold=-1.0, **settings).double()


@pytest.mark.parametrize("orthogonalization", ["cayley", "qr", "none"])
@pytest.mark.parametrize(("dim", "experts", "rank"), [(12, 3, 4), (13, 3, 4)])
@pytest.mark.parametrize("hidden", [20, 12, 7])
def test_shared_experts_are_the_dense_network(hidden, dim, experts, rank, orthogonalization):
    network = dense(dim, hidden)
    layer = make_layer("shared", dim, experts, rank, hidden, orthogonalization=orthogonalization)
    error = load(layer, network)
    assert error.first_E.shape == error.second_E.shape == (experts,)
    assert max(error.first_E.max(), error.second_E.max()) < 1e-10
    first, second = dense_weights(layer)
    exact = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(first, network[0].weight.expand(experts, -1, -1), **exact)
    torch.testing.assert_close(second, network[2].weight.expand(experts, -1, -1), **exact)
    x, context = torch.randn(2, 2, 30, dim, dtype=torch.float64)
    torch.testing.assert_close(layer(x, context), network(x), **exact)
    for module in layer.modules():
        if isinstance(module, OrthonormalFrames):
            assert orthonormality_error(module()) < 1e-10


@pytest.mark.parametrize("hidden", [20, 3])
def test_independent_experts_are_exact_up_to_their_rank(hidden):
    network, layer = dense(12, hidden, rank=4), make_layer("independent", hidden=hidden)
    error = load(layer, network)
    assert max(error.first_E.max(), error.second_E.max()) < 1e-10
    x, context = torch.randn(2, 1, 30, 12, dtype=torch.float64)
    torch.testing.assert_close(layer(x, context), network(x), rtol=0, atol=1e-10)


def test_below_the_rank_the_error_is_that_of_the_best_approximation():
    network, layer = dense(12, 20), make_layer("independent")
    error = load(layer, network)
    for weight, measured in ((network[0].weight, error.first_E), (network[2].weight, error.second_E)):
        values = torch.linalg.svdvals(weight)
        expected = (values[4:].square().sum() / values.square().sum()).sqrt()
        torch.testing.assert_close(measured, expected.detach().expand(3))


@pytest.mark.parametrize("hidden", [20, 7, 3])
def test_joint_experts_share_the_directions_out(hidden):
    network, layer = dense(12, hidden), make_layer("joint", hidden=hidden)
    load(layer, network)
    first, _ = dense_weights(layer)
    bases = layer.routing_bases()
    torch.testing.assert_close(first, network[0].weight @ bases @ bases.mT, rtol=0, atol=1e-10)
    torch.testing.assert_close(first.sum(0), network[0].weight, rtol=0, atol=1e-10)  # 3 * 4 directions: all


@pytest.mark.parametrize("coupling", ["shared", "joint"])
def test_directions_are_dealt_in_turn(coupling):
    # W1 = diag(3, 2, 1, 0.5): E = 2, R = 2, so expert 0 routes by axes 0 and 2, expert 1 by 1 and 3.
    layer = make_layer(coupling, dim=4, experts=2, rank=2, hidden=4)
    first = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5]))
    load_dense_weights(layer, first, torch.zeros(4), torch.eye(4), torch.zeros(4))
    blocks = layer.routing_bases().abs()
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(blocks, torch.stack((eye[:, [0, 2]], eye[:, [1, 3]])), rtol=0, atol=1e-10)
    expected = [[3, 1, 2, 0.5], [3, 1, 2, 0.5]] if coupling == "shared" else [[3, 1], [2, 0.5]]
    assert layer.experts.hidden.first_spectrum_EC.tolist() == [pytest.approx(row) for row in expected]


def test_a_layer_in_float32_inside_autocast_holds_it_to_single_precision():
    network = dense(12, 20)
    with torch.autocast("cpu", torch.bfloat16):
        layer = make_layer("shared").float()
        error = load(layer, network)
    assert max(error.first_E.max(), error.second_E.max()) < 1e-5


def test_weights_of_zero_have_no_error():
    layer = make_layer("shared")
    error = load_dense_weights(layer, *(torch.zeros(shape) for shape in ((20, 12), 20, (12, 20), 12)))
    assert error.first_E.tolist() == error.second_E.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("index", "field"), [(0, "first_HD"), (1, "first_bias_H"), (2, "second_DH"), (3, "second_bias_D")]
)
def test_what_does_not_fit_is_refused(index, field):
    fitting = [torch.zeros(shape) for shape in ((20, 12), 20, (12, 20), 12)]
    wrong = [*fitting]
    wrong[index] = torch.zeros(3, 3)
    with pytest.raises(ConfigError, match="shape") as error:
        load_dense_weights(make_layer("shared"), *wrong)
    assert error.value.field == field
    fitting[index] = fitting[index] + torch.nan
    with pytest.raises(ConfigError, match="finite"):
        load_dense_weights(make_layer("shared"), *fitting)
