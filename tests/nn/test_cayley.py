"""The Cayley map: its system by hand, its inverse, its gradient, and when frames stay factored."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from brainage.nn.cayley import cayley_frame, half_system, inverse_by_blocks
from brainage.nn.stiefel import OrthonormalFrames, orthonormality_error


def draw(dim, columns, count=2):
    frames = OrthonormalFrames(count, dim, columns).double()
    weight = torch.randn(count, dim, columns, dtype=torch.float64, requires_grad=True)
    return weight, frames.start_MCC


def test_system_of_a_thin_frame_by_hand():
    # A = [[., .], [2, .]] gives S = [[0, -2], [2, 0]]; B = [1, 3] gives B^T B = [[1, 3], [3, 9]];
    # M = I + S + B^T B = [[2, 1], [5, 10]].
    half = half_system(torch.tensor([[[7.0, 7.0], [2.0, 7.0], [1.0, 3.0]]]))
    assert half.tolist() == [[[1.0, 0.5], [2.5, 5.0]]]
    # Of determinant 5 - 1.25 = 3.75.
    torch.testing.assert_close(inverse_by_blocks(half), torch.tensor([[[5.0, -0.5], [-2.5, 1.0]]]) / 3.75)


@pytest.mark.parametrize("columns", [5, 9, 33])
def test_the_gram_matrix_by_blocks_is_that_of_one_product(columns, monkeypatch):
    weight = torch.randn(2, columns + 20, columns, dtype=torch.float64)
    whole = half_system(weight)
    monkeypatch.setattr("brainage.nn.cayley.SMALLEST_GRAM", 4)
    torch.testing.assert_close(half_system(weight), whole)


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
def test_gradient_of_the_frame(dim, columns):
    weight, start = draw(dim, columns)
    assert torch.autograd.gradcheck(lambda w: cayley_frame(w, start), weight)


@pytest.mark.parametrize(
    ("orthogonalization", "rows", "training", "expected"),
    [
        ("cayley", 10, True, True),
        ("cayley", 500, True, False),  # more rows of data than the frame has
        ("qr", 10, True, False),
        ("none", 10, True, False),
        ("cayley", 10, False, False),  # kept from call to call
    ],
)
def test_frames_stay_factored_where_that_is_cheaper(orthogonalization, rows, training, expected):
    frames = OrthonormalFrames(2, 120, 100, orthogonalization).train(training)
    with torch.set_grad_enabled(training):
        assert frames.factored(rows) == expected


def test_few_columns_and_reduced_precision_are_written_out(monkeypatch):
    assert not OrthonormalFrames(1, 120, 8).factored(10)
    frames = OrthonormalFrames(1, 120, 100)
    monkeypatch.setattr("torch.get_float32_matmul_precision", lambda: "medium")
    assert not frames.factored(10)


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
