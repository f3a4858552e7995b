"""Networks on slices against one network at a time, written with autograd alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from brainage.nn.cayley import cayley_frame
from brainage.nn.factored_slices import factored_networks
from brainage.nn.slices import networks, slice_products
from brainage.nn.stiefel import OrthonormalFrames

SIZES = st.lists(st.integers(0, 5), min_size=1, max_size=4)


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def one_by_one(rows, sizes, first, bias, second, second_bias, spectra=None):
    ones = torch.ones_like(second_bias)
    s1, s2 = spectra or (ones, ones)
    outputs = [
        F.gelu((x * s1[e]) @ first[e].T + bias[e]) @ second[e] * s2[e] + second_bias[e]
        for e, x in enumerate(rows.split(sizes))
    ]
    return torch.cat(outputs)


def assert_equal_with_gradients(y, expected, inputs):
    torch.testing.assert_close(y, expected)
    weight = torch.randn_like(y)
    pairs = [torch.autograd.grad((out * weight).sum(), inputs) for out in (y, expected)]
    for found, wanted in zip(*pairs, strict=True):
        torch.testing.assert_close(found, wanted)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 6), st.integers(1, 7), st.booleans()
)
@settings(max_examples=30, deadline=None)
def test_networks(sizes, width, hidden, with_spectra):
    experts = len(sizes)
    rows = draw(sum(sizes), width)
    weights = [draw(experts, hidden, width), draw(experts, hidden), draw(experts, hidden, width)]
    weights.append(draw(experts, width))
    spectra = (draw(experts, width), draw(experts, width)) if with_spectra else None
    y = networks(rows, tuple(sizes), *weights, spectra)
    inputs = [rows, *weights, *(spectra or ())]
    assert_equal_with_gradients(y, one_by_one(rows, sizes, *weights, spectra), inputs)
    with torch.no_grad():
        torch.testing.assert_close(networks(rows, tuple(sizes), *weights, spectra), y)


@given(SIZES, st.integers(1, 5), st.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_factored_networks_equal_those_with_the_frames(sizes, width, more):
    experts, hidden = len(sizes), width + more
    frames = [OrthonormalFrames(experts, hidden, width).double() for _ in range(2)]
    starts = [frame.start_MCC for frame in frames]
    parameters = [draw(experts, hidden, width), draw(experts, hidden, width)]
    rows, bias, second_bias = draw(sum(sizes), width), draw(experts, hidden), draw(experts, width)
    spectra = (draw(experts, width), draw(experts, width))
    pairs = list(zip(parameters, starts, strict=True))
    y = factored_networks(rows, tuple(sizes), pairs[0], bias, pairs[1], second_bias, spectra)
    first, second = (cayley_frame(*pair) for pair in pairs)
    expected = one_by_one(rows, sizes, first, bias, second, second_bias, spectra)
    assert_equal_with_gradients(y, expected, [rows, *parameters, bias, second_bias, *spectra])


def test_factored_networks_gradcheck():
    starts = [OrthonormalFrames(2, 5, 3).double().start_MCC for _ in range(2)]
    inputs = (draw(4, 3), draw(2, 5, 3), draw(2, 5), draw(2, 5, 3), draw(2, 3), draw(2, 3), draw(2, 3))

    def run(rows, first, bias, second, second_bias, *spectra):
        pairs = [(first, starts[0]), (second, starts[1])]
        return factored_networks(rows, (3, 1), pairs[0], bias, pairs[1], second_bias, spectra)

    assert torch.autograd.gradcheck(run, inputs)


@given(SIZES, st.integers(1, 6), st.integers(1, 7))
@settings(max_examples=20, deadline=None)
def test_products(sizes, width, dim):
    rows, matrix, bias = draw(sum(sizes), width), draw(len(sizes), dim, width), draw(len(sizes), dim)
    expected = [x @ matrix[e].T + bias[e] for e, x in enumerate(rows.split(sizes))]
    y = slice_products(rows, tuple(sizes), matrix, bias)
    assert_equal_with_gradients(y, torch.cat(expected), [rows, matrix, bias])


@pytest.mark.parametrize("spectra", [False, True])
def test_transposed_weights_get_gradients_in_their_own_layout(spectra):
    """Else every backward pass would copy them."""
    rows, held, bias, other = draw(6, 3), draw(2, 3, 4), draw(2, 4), draw(2, 4, 3)
    both = (draw(2, 3), draw(2, 3)) if spectra else None
    second_bias = torch.zeros(2, 3, dtype=torch.float64)
    networks(rows, (2, 4), other, bias, held.mT, second_bias, both).sum().backward()
    assert held.grad.is_contiguous()
