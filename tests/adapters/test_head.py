"""The pooler that is trained, and heads: names, and what autocast may not touch."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustmm.adapters import LinearHead, TiedHead, TwoLayerHead, trained_pooler
from robustmm.adapters.head import init_linears


def test_the_pooler_is_a_copy_or_new():
    frozen = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).requires_grad_(False)
    copied = trained_pooler(frozen, 4)
    x = torch.randn(3, 4)
    torch.testing.assert_close(copied(x), frozen(x))
    assert all(p.requires_grad for p in copied.parameters())
    assert not any(p.requires_grad for p in frozen.parameters())
    assert trained_pooler(None, 4)(x).abs().max() <= 1


def test_training_the_copy_leaves_the_checkpoint_alone():
    frozen = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).requires_grad_(False)
    before, x = frozen[0].weight.clone(), torch.randn(3, 4)
    copied = trained_pooler(frozen, 4)
    copied(x).sum().backward()
    with torch.no_grad():
        copied[0].weight -= copied[0].weight.grad
    assert torch.equal(frozen[0].weight, before)
    assert not torch.equal(copied[0].weight, before)
    assert frozen[0].weight.grad is None


def test_a_new_pooler_is_trained_too():
    pooler = trained_pooler(None, 6)
    assert [tuple(p.shape) for p in pooler.parameters()] == [(6, 6), (6,)]
    assert all(p.requires_grad for p in pooler.parameters())


def test_head_has_two_layers():
    head = TwoLayerHead(8, 3)
    shapes = [tuple(p.shape) for p in head.parameters()]
    assert shapes == [(16, 8), (16,), (16,), (16,), (3, 16), (3,)]
    assert not head.layers[0].bias.any()


def test_head_is_linear_norm_gelu_linear():
    head, pooled = TwoLayerHead(8, 3), torch.randn(5, 8)
    first, _, _, last = head.layers
    hidden = F.gelu(F.layer_norm(first(pooled), (16,)))
    torch.testing.assert_close(head(pooled), last(hidden))


def test_linears_start_small_and_norms_as_they_were():
    part = nn.Sequential(nn.Linear(200, 300), nn.Sequential(nn.LayerNorm(300)))
    part.append(nn.Linear(300, 200, bias=True))
    init_linears(part)
    for linear in (part[0], part[2]):
        assert abs(linear.weight.std().item() - 0.02) < 5e-4
        assert not linear.bias.any()
    assert (part[1][0].weight == 1).all()


def test_a_linear_without_bias_has_none_afterwards():
    linear = nn.Linear(3, 3, bias=False)
    init_linears(linear)
    assert linear.bias is None


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


@pytest.mark.parametrize(("make", "width"), [(LinearHead, 4), (TwoLayerHead, 8)])
def test_a_head_says_what_its_last_layer_reads(make, width):
    head, pooled = make(4, 3), torch.randn(5, 4)
    expected = head(pooled)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = head.hidden(pooled)
    assert hidden.shape == (5, width)
    assert isinstance(head.last, nn.Linear)
    assert torch.equal(nn.Linear.forward(head.last, hidden), expected)


def test_logits_of_a_tied_head_are_products_with_the_embeddings():
    head = TiedHead(6, 4, 3, label_std=2.0).eval()
    x = torch.randn(5, 6)
    with torch.no_grad():
        torch.testing.assert_close(head(x), head.layers(x) @ head.labels.T)
        one = head.embed(torch.tensor([2, 0]))
        torch.testing.assert_close(one, head.labels[[2, 0]])
        both = head.embed(torch.tensor([[1.0, 0.0, 1.0]]))
        torch.testing.assert_close(both[0], head.labels[0] + head.labels[2])
        with torch.autocast("cpu", torch.bfloat16):
            assert head(x).dtype == torch.float32
    assert TiedHead(64, 64, 50, label_std=0.1).labels.std() < 0.2 < head.labels.std()
