"""Heads: what autocast may not touch, and what saved models call their weights."""

import pytest
import torch
from torch import nn

from robustmm.adapters import LinearHead, TwoLayerHead


@pytest.mark.parametrize("make", [LinearHead, TwoLayerHead])
def test_autocast_makes_no_difference_to_a_head(make):
    head, pooled = make(16, 3), torch.randn(40, 16, generator=torch.manual_seed(0))
    expected = head(pooled)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = head(pooled)
        rounded = nn.Linear(16, 3)(pooled)
        assert head(pooled.bfloat16()).dtype == torch.float32
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(got, expected)


def test_a_linear_head_is_a_linear_layer_with_its_names():
    torch.manual_seed(0)
    head = LinearHead(4, 3)
    torch.manual_seed(0)
    plain = nn.Linear(4, 3)
    assert list(head.state_dict()) == ["weight", "bias"]
    head.load_state_dict(plain.state_dict(), strict=True)
    pooled = torch.randn(2, 4)
    assert torch.equal(head(pooled), plain(pooled))


def test_a_head_in_float32_sends_gradients_to_what_is_in_bfloat16():
    head, inputs = LinearHead(4, 3), torch.randn(2, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        head(inputs.bfloat16()).sum().backward()
    assert inputs.grad.any()
    assert head.weight.grad.dtype == torch.float32
