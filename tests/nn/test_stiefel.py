"""Orthonormal frames: the maps, their inverse, and what they refuse."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainage.errors import ConfigError
from brainage.nn import StiefelBasis
from brainage.nn.cayley import cayley_frame
from brainage.nn.stiefel import OrthonormalFrames, orthonormality_error, qr_frame


def test_cayley_of_a_plane_rotation_by_hand():
    # A = [[0, 0], [1, 0]] gives S = [[0, -1], [1, 0]], no rows below, M = I + S = [[1, -1], [1, 1]],
    # M^-1 = [[1, 1], [-1, 1]] / 2, Q = 2 M^-1 - I = [[0, 1], [-1, 0]]: a quarter turn.
    weight = torch.tensor([[[0.0, 5.0], [1.0, 7.0]]])  # only the strict lower triangle counts
    expected = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]])
    torch.testing.assert_close(cayley_frame(weight, torch.eye(2)[None]), expected)


def test_thin_cayley_of_a_single_column_by_hand():
    # C = 1: S = 0, B = [1/2], M = 1 + 1/4 = 5/4, Y = 4/5, Q = [2 Y - 1; -2 B Y] = [3/5; -4/5].
    weight = torch.tensor([[[0.0], [0.5]]])
    torch.testing.assert_close(cayley_frame(weight, torch.ones(1, 1, 1)), torch.tensor([[[0.6], [-0.8]]]))


def test_qr_signs_are_fixed_by_hand():
    # Columns (-3, -4) and (0, 1): q1 = (-3, -4) / 5; the rest of (0, 1) is (0, 1) + 4/5 q1 = (-12, 9) / 25,
    # so q2 = (-4, 3) / 5.
    frame = qr_frame(torch.tensor([[[-3.0, 0.0], [-4.0, 1.0]]]))
    torch.testing.assert_close(frame, torch.tensor([[[-0.6, -0.8], [-0.8, 0.6]]]))


@pytest.mark.parametrize("orthogonalization", ["cayley", "qr"])
@given(dim=st.integers(1, 12), data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_parameter_gives_orthonormal_columns(orthogonalization, dim, data):
    columns = data.draw(st.integers(1, dim))
    frames = OrthonormalFrames(2, dim, columns, orthogonalization)
    torch.nn.init.normal_(frames.weight_MDC, std=2.0)
    assert frames().shape == (2, dim, columns)
    assert orthonormality_error(frames()) < 1e-5


@pytest.mark.parametrize("orthogonalization", ["cayley", "qr"])
@pytest.mark.parametrize(("dim", "columns"), [(9, 4), (9, 9), (7, 6), (5, 1), (1, 1)])
def test_loading_given_frames_round_trips(orthogonalization, dim, columns):
    target = qr_frame(torch.randn(3, dim, columns, dtype=torch.float64))
    frames = OrthonormalFrames(3, dim, columns, orthogonalization).double()
    frames.load_frames(target)
    torch.testing.assert_close(frames(), target, rtol=0, atol=1e-10)


def test_cayley_loads_a_frame_at_the_pole_of_the_plain_map():
    # I + Q1 is singular for Q1 = -I, which the map without a start can never reach.
    target = -torch.eye(4, 3, dtype=torch.float64)[None]
    frames = OrthonormalFrames(1, 4, 3).double()
    frames.load_frames(target)
    torch.testing.assert_close(frames(), target, rtol=0, atol=1e-10)


def test_loading_refuses_what_is_not_a_frame():
    frames = OrthonormalFrames(1, 4, 2)
    with pytest.raises(ConfigError, match="shape"):
        frames.load_frames(torch.zeros(1, 2, 4))
    with pytest.raises(ConfigError, match="Q\\^T Q"):
        frames.load_frames(torch.full((1, 4, 2), torch.nan))


@pytest.mark.parametrize("orthogonalization", ["cayley", "qr"])
@pytest.mark.parametrize(("dim", "columns"), [(5, 2), (4, 4)])
def test_gradient(orthogonalization, dim, columns):
    frames = OrthonormalFrames(2, dim, columns, orthogonalization).double()
    weight = torch.randn(2, dim, columns, dtype=torch.float64, requires_grad=True)
    if orthogonalization == "qr":
        assert torch.autograd.gradcheck(qr_frame, weight)
    else:
        assert torch.autograd.gradcheck(lambda w: cayley_frame(w, frames.start_MCC), weight)


@pytest.mark.parametrize("orthogonalization", ["cayley", "qr"])
def test_stays_in_full_precision(orthogonalization):
    frames = OrthonormalFrames(2, 48, 48, orthogonalization)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = frames()
    torch.testing.assert_close(under_autocast, frames(), rtol=0, atol=0)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        reduced = frames()
    finally:
        torch.set_float32_matmul_precision(before)
    assert reduced.dtype == torch.float32
    assert orthonormality_error(reduced) < 2e-6


@pytest.mark.parametrize("orthogonalization", ["cayley", "qr"])
def test_built_and_loaded_inside_an_autocast_region(orthogonalization):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frames = OrthonormalFrames(2, 96, 48, orthogonalization)
        assert orthonormality_error(frames().double()) < 2e-6
        target = qr_frame(torch.randn(2, 96, 48))
        frames.load_frames(target)
        frames.load_state_dict(frames.state_dict())
    torch.testing.assert_close(frames(), target, rtol=0, atol=2e-6)


def test_state_dict_restores_the_frames():
    source, target = OrthonormalFrames(2, 6, 4), OrthonormalFrames(2, 6, 4)
    target.load_state_dict(source.state_dict())
    assert torch.equal(source(), target())


def test_a_state_dict_in_half_precision_still_gives_orthonormal_columns():
    source, target = OrthonormalFrames(2, 40, 24), OrthonormalFrames(2, 40, 24)
    target.load_state_dict({name: value.half() for name, value in source.state_dict().items()})
    assert orthonormality_error(target()) < 2e-6
    torch.testing.assert_close(target(), source(), rtol=0, atol=2e-3)


def test_orthonormality_error_by_hand():
    # Q^T Q of the columns (1, 0) and (1/2, 1) is [[1, 1/2], [1/2, 5/4]].
    assert orthonormality_error(torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])) == 0.5


@pytest.mark.parametrize("orthogonalization", ["cayley", "qr"])
def test_joint_bases_are_orthogonal_to_each_other(orthogonalization):
    bases = StiefelBasis(3, 10, 3, "joint", orthogonalization)()
    assert bases.shape == (3, 10, 3)
    assert orthonormality_error(bases.movedim(0, 1).reshape(10, 9)) < 1e-5


def test_independent_bases_are_orthonormal_by_themselves():
    bases = StiefelBasis(5, 6, 4, "independent")().detach()
    assert bases.shape == (5, 6, 4)
    assert orthonormality_error(bases) < 1e-5
    assert float((bases[0].T @ bases[1]).abs().max()) > 0.05


@pytest.mark.parametrize("coupling", ["joint", "independent"])
def test_bases_load(coupling):
    frame = qr_frame(torch.randn(1, 8, 6, dtype=torch.float64))[0]
    bases = torch.stack((frame[:, :3], frame[:, 3:]))
    basis = StiefelBasis(2, 8, 3, coupling).double()
    basis.load_bases(bases)
    torch.testing.assert_close(basis(), bases, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "field", "reason"),
    [
        ((4, 16, 16, "independent"), "rank", "same for all experts"),
        ((4, 16, 17, "independent"), "rank", "same for all experts"),
        ((5, 16, 4, "joint"), "rank", "num_experts"),
        ((4, 16, 0, "joint"), "rank", "at least 1"),
        ((0, 16, 4, "joint"), "num_experts", "at least 1"),
        ((4, 16, 4, "shared"), "coupling", "joint"),
        ((4, 16, 4, "joint", "svd"), "orthogonalization", "cayley"),
    ],
)
def test_bad_configuration_is_refused_with_the_reason(arguments, field, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        StiefelBasis(*arguments)
    assert error.value.field == field


def kept(frames):
    frames.eval()
    with torch.no_grad():
        return frames()


def test_frames_are_kept_in_evaluation_until_a_parameter_changes():
    frames = OrthonormalFrames(2, 6, 3)
    first = kept(frames)
    with torch.no_grad():
        assert frames() is first
        frames.weight_MDC.mul_(1.5)
        changed = frames()
    assert (changed - first).abs().max() > 0.01
    torch.testing.assert_close(changed, frames())  # with gradients they are computed anew
    frames.load_state_dict(OrthonormalFrames(2, 6, 3).state_dict())
    with torch.no_grad():
        assert (frames() - changed).abs().max() > 0.01


def test_frames_are_not_kept_in_training_nor_with_gradients():
    frames = OrthonormalFrames(2, 6, 3)
    assert frames().requires_grad
    with torch.no_grad():
        assert frames() is not frames()
    frames.eval()
    assert frames().requires_grad
    assert frames() is not frames()


def test_a_change_that_autograd_does_not_count_is_seen_after_eval():
    frames = OrthonormalFrames(2, 6, 3)
    first = kept(frames)
    frames.weight_MDC.data.mul_(1.5)
    assert (kept(frames) - first).abs().max() > 0.01


def test_copies_of_a_module_keep_frames_of_their_own():
    frames = OrthonormalFrames(2, 6, 3)
    first = kept(frames)
    twin = copy.deepcopy(frames)
    with torch.no_grad():
        twin.weight_MDC.mul_(1.5)
        assert (twin() - first).abs().max() > 0.01
        assert frames() is first
    assert "_kept" not in frames.state_dict()


def test_frames_made_in_inference_mode():
    with torch.inference_mode():
        frames = OrthonormalFrames(2, 6, 3).eval()
        torch.testing.assert_close(frames(), frames())
