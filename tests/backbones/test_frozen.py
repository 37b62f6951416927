"""Modules with shared frozen parameters: copies, modes, thawing, moving."""

import copy

import pytest
import torch
from torch import nn

from robustmm.backbones.frozen import FrozenModule


class Frozen(FrozenModule):
    """Two frozen linears and perhaps an adapter."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.dropout = nn.Dropout(0.5)
        self.freeze()
        self.adapter = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))

    def adapters(self):
        if "adapter" in dict(self.named_children()):
            yield self.adapter


@pytest.fixture
def module():
    return Frozen()


def names(module, chosen):
    return {name for name, p in module.named_parameters() if chosen(p)}


ADAPTER = {"adapter.0.weight", "adapter.0.bias"}


def test_what_is_there_when_it_is_frozen_is_shared(module):
    assert names(module, lambda p: p.requires_grad) == ADAPTER
    assert names(module, lambda p: not module.is_shared(p)) == ADAPTER
    equal = module.first.weight.detach().clone()
    assert not module.is_shared(equal)


def test_only_adapters_are_set_to_training(module):
    module.train()
    assert module.training
    assert module.adapter[1].training
    assert not module.dropout.training
    module.eval()
    assert not module.adapter[1].training


def test_a_copy_owns_its_modules_and_adapters_only(module):
    twin = copy.deepcopy(module)
    for (name, mine), theirs in zip(
        module.named_parameters(), twin.parameters(), strict=True
    ):
        assert (mine is theirs) is (name not in ADAPTER)
        assert torch.equal(mine, theirs)
    assert twin.first is not module.first
    assert twin.is_shared(module.second.bias)


def test_thawed_parameters_are_the_modules_own(module):
    twin, before = copy.deepcopy(module), module.first.bias
    module.thaw(lambda name: name.endswith("bias"))
    assert names(module, lambda p: p.requires_grad) == ADAPTER | {
        "first.bias",
        "second.bias",
    }
    assert module.first.bias is not before
    assert not module.is_shared(module.first.bias)
    assert module.is_shared(module.first.weight)
    with torch.no_grad():
        module.first.bias.add_(1)
    assert twin.first.bias is before
    assert torch.equal(module.first.bias, before + 1)


def test_thawing_leaves_adapters_alone(module):
    parts = dict(module.adapter.named_parameters())
    module.thaw(lambda name: True)
    assert all(p is parts[name] for name, p in module.adapter.named_parameters())
    assert names(module, module.is_shared) == set()


def test_a_moved_module_leaves_its_copies_where_they_are(module):
    twin = copy.deepcopy(module)
    module.double()
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    assert {p.dtype for p in twin.parameters()} == {torch.float32}
    assert module.is_shared(module.first.weight)
    assert not twin.is_shared(module.first.weight)
    assert names(module, lambda p: p.requires_grad) == ADAPTER
