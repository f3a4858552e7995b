"""The factors of the Cayley map: gradients, and products equal to those with the frame written out."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainage.nn.cayley import (
    CayleyProduct,
    MatrixProduct,
    cayley_factors,
    cayley_frame,
    inverse_by_blocks,
)
from brainage.nn.stiefel import OrthonormalFrames, orthonormality_error


def draw(dim, columns, count=2):
    frames = OrthonormalFrames(count, dim, columns).double()
    weight = torch.randn(count, dim, columns, dtype=torch.float64, requires_grad=True)
    return weight, frames.start_MCC


def test_factors_of_a_thin_frame_by_hand():
    # A = [[., .], [2, .]] gives S = [[0, -2], [2, 0]]; B = [1, 3] gives B^T B = [[1, 3], [3, 9]];
    # M = I + S + B^T B = [[2, 1], [5, 10]].
    below, half, inverse = cayley_factors(torch.tensor([[[7.0, 7.0], [2.0, 7.0], [1.0, 3.0]]]))
    assert below.tolist() == [[[1.0, 3.0]]]
    assert half.tolist() == [[[1.0, 0.5], [2.5, 5.0]]]
    # Of determinant 5 - 1.25 = 3.75.
    torch.testing.assert_close(inverse, torch.tensor([[[5.0, -0.5], [-2.5, 1.0]]]) / 3.75)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 65, 130, 193])
@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
def test_inverse_by_blocks(size, scale):
    skew = scale * torch.randn(3, size, size, dtype=torch.float64)
    tall = scale * torch.randn(3, 2 * size, size, dtype=torch.float64)
    system = torch.eye(size, dtype=torch.float64) + skew - skew.mT + tall.mT @ tall
    inverse = inverse_by_blocks(system)
    torch.testing.assert_close(inverse, torch.linalg.inv(system), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("std", [0.005, 0.05, 0.5])
def test_frames_of_many_columns_are_orthonormal_in_float32(std):
    frames = OrthonormalFrames(2, 400, 200)
    torch.nn.init.normal_(frames.weight_MDC, std=std)
    assert orthonormality_error(frames()) < 1e-5


@pytest.mark.parametrize(("dim", "columns"), [(6, 3), (4, 4), (5, 1)])
def test_gradients_of_the_factors_alone_and_together(dim, columns):
    weight, _ = draw(dim, columns)
    assert torch.autograd.gradcheck(lambda w: cayley_factors(w)[:2], weight)
    if dim > columns:
        assert torch.autograd.gradcheck(lambda w: cayley_factors(w)[0], weight)
    assert torch.autograd.gradcheck(lambda w: cayley_factors(w)[1], weight)


@given(data=st.data(), columns=st.integers(1, 6), more=st.integers(0, 6), rows=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_products_equal_those_with_the_matrix(data, columns, more, rows):
    dim = columns + more
    weight, start = draw(dim, columns, count=1)
    x_nC = torch.randn(rows, columns, dtype=torch.float64)
    x_nD, bias_D = torch.randn(rows, dim, dtype=torch.float64), torch.randn(dim, dtype=torch.float64)
    factored = CayleyProduct(*(factor[0] for factor in cayley_factors(weight)), start[0])
    matrix = MatrixProduct(cayley_frame(weight, start)[0])
    torch.testing.assert_close(
        torch.cat(factored.expand(x_nC, bias_D), 1), torch.cat(matrix.expand(x_nC, bias_D), 1)
    )
    pieces = x_nD.split_with_sizes((columns, more), dim=1)
    torch.testing.assert_close(factored.reduce(pieces), matrix.reduce([x_nD]))


@pytest.mark.parametrize(("dim", "columns"), [(6, 3), (4, 4)])
def test_gradients_of_the_products(dim, columns):
    weight, start = draw(dim, columns, count=1)
    x_nC = torch.randn(4, columns, dtype=torch.float64, requires_grad=True)
    bias_D = torch.randn(dim, dtype=torch.float64, requires_grad=True)

    def there_and_back(weight, x_nC, bias_D):
        product = CayleyProduct(*(factor[0] for factor in cayley_factors(weight)), start[0])
        return product.reduce([piece.tanh() for piece in product.expand(x_nC, bias_D)])

    assert torch.autograd.gradcheck(there_and_back, (weight, x_nC, bias_D))


@pytest.mark.parametrize(
    ("orthogonalization", "rows", "training", "kind"),
    [
        ("cayley", 10, True, CayleyProduct),
        ("cayley", 500, True, MatrixProduct),  # more rows of data than the frame has
        ("qr", 10, True, MatrixProduct),
        ("none", 10, True, MatrixProduct),
        ("cayley", 10, False, MatrixProduct),  # kept from call to call
    ],
)
def test_the_cheaper_product_is_taken(orthogonalization, rows, training, kind):
    frames = OrthonormalFrames(2, 120, 100, orthogonalization).train(training)
    with torch.set_grad_enabled(training):
        products = frames.products(rows)
    assert [type(product) for product in products] == [kind] * 2


def test_few_columns_are_written_out():
    assert isinstance(OrthonormalFrames(1, 120, 8).products(10)[0], MatrixProduct)


def test_several_threads_do_not_hang():
    # A batch of LU decompositions of this size never returned on two threads (see inverse_by_blocks).
    program = (
        "import torch; torch.set_num_threads(2); from brainage.nn.stiefel import OrthonormalFrames;"
        "frames = OrthonormalFrames(8, 300, 256); frames().sum().backward(); print('done')"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.stdout == "done\n", finished.stderr
