"""Agreement of CPU and GPU, forward and backward, for every layer."""

from __future__ import annotations

import copy

import pytest
import torch

from brainage.nn import ERMoE, load_dense_weights, make_moe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

LAYERS = [
    ("ermoe", {"rank": 8}),
    ("ermoe", {"rank": 8, "coupling": "joint", "orthogonalization": "qr"}),
    ("ermoe", {"rank": 8, "coupling": "independent", "scores": "learned"}),
    ("emoe", {"rank": 32}),
    ("vmoe", {"noise_std": 0.0}),
    ("cosine", {}),
    ("soft", {"slots_per_expert": 16}),
    ("dense", {}),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("router", "settings"), LAYERS)
def test_cpu_and_gpu_agree(router, settings, dtype):
    layer = make_moe(router, 64, 8, 48, **settings).to(dtype)
    x, context, weight = torch.randn(3, 2, 50, 64, dtype=dtype)
    prior = (torch.rand(50, 8) > 0.2).to(dtype)
    results = []
    for device in ("cpu", "cuda"):
        here = copy.deepcopy(layer).to(device)
        tokens = x.to(device).requires_grad_()
        y, record = here(tokens, context.to(device), prior.to(device), return_routing=True)
        (y * weight.to(device)).sum().backward()
        gradients = [parameter.grad for parameter in here.parameters()]
        tensors = [record.gates_BNE, y, tokens.grad, *(g for g in gradients if g is not None)]
        results.append([tensor.detach().cpu() for tensor in tensors])
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("router", "settings"), LAYERS)
def test_bfloat16_autocast_on_the_gpu(router, settings):
    layer = make_moe(router, 64, 8, 48, **settings).cuda().eval()
    x, context = torch.randn(2, 2, 50, 64, device="cuda")
    expected = layer(x, context)
    with torch.autocast("cuda", torch.bfloat16):
        y = layer(x, context)
    y.square().sum().backward()
    assert y.dtype == torch.float32
    assert (y - expected).abs().median() < 0.02 * expected.abs().mean()
    assert all(p.grad.isfinite().all() for p in layer.parameters() if p.grad is not None)


def test_a_dense_network_loads_on_the_gpu():
    layer = ERMoE(12, 3, 4, 20, threshold=-1.0).double().cuda()
    weights = [torch.randn(shape) for shape in ((20, 12), 20, (12, 20), 12)]
    assert load_dense_weights(layer, *weights).first_E.max() < 1e-10
    assert load_dense_weights(layer, *(weight.cuda() for weight in weights)).second_E.max() < 1e-10
