"""Self-attention: the fused and the explicit path, and the mean attention."""

from __future__ import annotations

import pytest
import torch

from brainage.errors import ConfigError
from brainage.nn.attention import SelfAttention


def test_explicit_path_equals_the_fused_kernel():
    attention = SelfAttention(12, 3).double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    output, weights = attention.with_mean_attention(x)
    torch.testing.assert_close(output, attention(x))
    assert weights.shape == (2, 7, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 7, dtype=torch.float64))


def test_equals_the_multi_head_attention_of_torch():
    attention = SelfAttention(12, 3)
    reference = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    reference.in_proj_weight.data = attention.query_key_value.weight.data
    reference.in_proj_bias.data = attention.query_key_value.bias.data
    reference.out_proj.load_state_dict(attention.output.state_dict())
    x = torch.randn(2, 7, 12)
    expected, expected_weights = reference(x, x, x, average_attn_weights=True)
    output, weights = attention.with_mean_attention(x)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(weights, expected_weights)


def test_padding_is_read_by_no_token():
    attention = SelfAttention(12, 3).double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    present = torch.ones(2, 7, dtype=torch.bool)
    present[1, 4:] = False
    output, weights = attention.with_mean_attention(x, present)
    torch.testing.assert_close(output, attention(x, present))
    assert not weights[1, :, 4:].any()
    torch.testing.assert_close(output[:1], attention(x[:1]))
    torch.testing.assert_close(output[1:, :4], attention(x[1:, :4]))


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="num_heads"):
        SelfAttention(12, 5)
