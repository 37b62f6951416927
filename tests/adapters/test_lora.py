"""Low-rank adapters against their equations."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustmm.adapters import DoRALinear, LoRALinear, VeRABasis, VeRALinear


def shake(module):
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not name.startswith("frozen"):
                parameter.add_(0.3 * torch.randn_like(parameter))


def adapters():
    linear = nn.Linear(7, 5)
    linear.requires_grad_(False)
    return {
        "lora": LoRALinear(linear, rank=2, alpha=6.0),
        "dora": DoRALinear(linear, rank=2, alpha=6.0),
        "vera": VeRALinear(linear, VeRABasis(7, 5, rank=3)),
    }


@pytest.mark.parametrize("name", ["lora", "dora", "vera"])
def test_identity_at_initialisation(name):
    adapter, x = adapters()[name], torch.randn(4, 3, 7)
    torch.testing.assert_close(adapter(x), adapter.frozen(x))


def test_lora_is_its_equation():
    adapter, x = adapters()["lora"], torch.randn(4, 7)
    shake(adapter)
    weight = adapter.frozen.weight + 3.0 * adapter.up @ adapter.down
    torch.testing.assert_close(adapter(x), F.linear(x, weight, adapter.frozen.bias))


def test_dora_is_its_equation_and_detaches_the_norm():
    adapter, x = adapters()["dora"], torch.randn(4, 7)
    shake(adapter)
    weight = adapter.frozen.weight + 3.0 * adapter.up @ adapter.down
    norm = weight.norm(dim=0, keepdim=True)
    scaled = adapter.magnitude * weight / norm.detach()
    expected = F.linear(x, scaled, adapter.frozen.bias)
    torch.testing.assert_close(adapter(x), expected)
    wanted = torch.autograd.grad(expected.square().sum(), adapter.down)[0]
    got = torch.autograd.grad(adapter(x).square().sum(), adapter.down)[0]
    torch.testing.assert_close(got, wanted)


def test_vera_is_its_equation_and_trains_two_vectors():
    adapter, x = adapters()["vera"], torch.randn(4, 7)
    shake(adapter)
    basis = adapter.basis
    update = torch.diag(adapter.output_scale) @ basis.up
    update = update @ torch.diag(adapter.code_scale) @ basis.down
    weight = adapter.frozen.weight + update
    torch.testing.assert_close(adapter(x), F.linear(x, weight, adapter.frozen.bias))
    trained = [p for p in adapter.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == 3 + 5


@pytest.mark.parametrize("name", ["lora", "dora", "vera"])
def test_every_trainable_parameter_gets_a_gradient(name):
    adapter = adapters()[name]
    shake(adapter)
    adapter(torch.randn(6, 7)).square().sum().backward()
    for parameter in adapter.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad
        if parameter.requires_grad:
            assert parameter.grad.abs().sum() > 0


def test_dropout_only_while_training():
    linear = nn.Linear(50, 4)
    adapter, x = LoRALinear(linear, rank=1, dropout=0.5), torch.randn(2, 50)
    shake(adapter)
    assert not torch.equal(adapter(x), adapter(x))
    adapter.eval()
    assert torch.equal(adapter(x), adapter(x))


@pytest.mark.parametrize("name", ["lora", "dora", "vera"])
def test_what_is_merged_is_the_same_until_a_training(name):
    adapter, x = adapters()[name].eval(), torch.randn(4, 3, 7)
    shake(adapter)
    expected, names = adapter(x), set(adapter.state_dict())
    adapter.merge()
    torch.testing.assert_close(adapter(x), expected, atol=1e-5, rtol=1e-5)
    assert set(adapter.state_dict()) == names
    with torch.no_grad():
        shake(adapter)
    torch.testing.assert_close(adapter(x), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(adapter.train()(x), expected, atol=1e-3)
