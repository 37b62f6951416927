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


def test_one_way_down_gives_what_each_gives_alone():
    several = [LoRALinear(nn.Linear(7, n), rank=r) for n, r in ((5, 1), (5, 2), (4, 3))]
    for adapter in several:
        shake(adapter)
    x = torch.randn(4, 3, 7)
    expected = [adapter(x) for adapter in several]
    for found, wanted in zip(LoRALinear.together(several, x), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    several[1].merge()  # as in a prediction
    for found, wanted in zip(LoRALinear.together(several, x), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_one_way_down_drops_the_same_inputs_for_all():
    several = [LoRALinear(nn.Linear(50, 4), rank=1, dropout=0.5) for _ in range(3)]
    for adapter in several:
        adapter.load_state_dict(several[0].state_dict())
        nn.init.ones_(adapter.up)
    x = torch.randn(2, 50)
    first, *others = LoRALinear.together(several, x)
    assert not torch.equal(first, LoRALinear.together(several, x)[0])
    assert all(torch.equal(first, other) for other in others)
    several[2].dropout.p = 0.1  # rates that differ cannot drop the same
    assert not torch.equal(*LoRALinear.together(several, x)[1:])
