"""Stacked experts against a plain loop over tokens and experts."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustmm.adapters import ExpertLinear, Experts, JointExpertLinear
from robustmm.backbones import Tokens

D_IN, D_OUT = 7, 5


def frozen(n):
    layers = [nn.Linear(D_IN, D_OUT) for _ in range(n)]
    for layer in layers:
        layer.requires_grad_(False)
    return layers


def tokens_of(x, mask=None, **context):
    """Tokens of a layer whose input is as long as x."""
    return Tokens(x, mask, {"text": (0, x.shape[1])}).with_context(**context)


def shaken(module, scale=0.5):
    """Leave the initial point, where the experts do nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn_like(parameter))
    return module.eval()


def reference_gates(logits, top_k):
    """Gates (N,) of one token, written as the paper's text says them."""
    probabilities = torch.exp(logits) / torch.exp(logits).sum()
    if top_k is None:
        return probabilities
    ranks = logits.detach().argsort(descending=True).argsort()
    chosen = probabilities * (ranks < top_k)
    return chosen / chosen.sum() if top_k > 1 else chosen


def reference(layer, experts, p, x, mask=None):
    """Linear p of equation 8, token by token and expert by expert."""
    router, rows = experts.router, []
    for b, tokens in enumerate(x):
        here = tokens if mask is None else tokens[mask[b]]
        for token in tokens:
            seen = here.mean(dim=0) if router.level == "instance" else token
            gates = reference_gates(router.weight[p] @ seen, router.top_k)
            row = layer(token)
            for n, gate in enumerate(gates):
                update = experts.up[p, n].T @ (experts.down[p, n] @ token)
                row = row + experts.scale * gate * update
            rows.append(row)
    return torch.stack(rows).unflatten(0, x.shape[:2])


OPTIONS = [
    {"top_k": 1},
    {"top_k": 2},
    {"top_k": 4},
    {"top_k": None},
    {"top_k": 2, "level": "instance"},
    {"top_k": None, "level": "instance"},
]


@pytest.mark.parametrize("n_linears", [1, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_stacked_experts_are_the_loop_in_values_and_gradients(options, n_linears):
    layers = frozen(n_linears)
    adapter = JointExpertLinear(layers, 4, 2, alpha=6.0, **options)
    shaken(adapter)
    x = torch.randn(3, 6, D_IN, requires_grad=True)
    mask = torch.arange(6) < torch.tensor([[6], [4], [2]])
    outputs = adapter(x, tokens_of(x, mask))
    expected = [
        reference(layer, adapter.experts, p, x, mask) for p, layer in enumerate(layers)
    ]
    weights = [torch.randn_like(y) for y in outputs]
    trained = [x, *(p for p in adapter.parameters() if p.requires_grad)]
    results = []
    for values in (outputs, expected):
        loss = sum((w * y).sum() for w, y in zip(weights, values, strict=True))
        results.append(torch.autograd.grad(loss, trained))
    for y, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(y, wanted, atol=1e-5, rtol=1e-5)
    for gradient, wanted in zip(*results, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-5)


def test_joint_linears_are_single_ones_side_by_side():
    layers = frozen(3)
    joint = shaken(JointExpertLinear(layers, 4, 2))
    x = torch.randn(2, 6, D_IN)
    for p, y in enumerate(joint(x)):
        single = ExpertLinear(layers[p], 4, 2).eval()
        with torch.no_grad():
            single.experts.down.copy_(joint.experts.down[p : p + 1])
            single.experts.up.copy_(joint.experts.up[p : p + 1])
            single.experts.router.weight.copy_(joint.experts.router.weight[p : p + 1])
        torch.testing.assert_close(single(x), y)


def test_nothing_is_added_at_initialisation():
    (layer,) = frozen(1)
    x = torch.randn(2, 6, D_IN)
    assert torch.equal(ExpertLinear(layer, 4, 2, alpha=8.0)(x), layer(x))


def test_one_expert_is_a_low_rank_adapter():
    (layer,) = frozen(1)
    adapter = shaken(ExpertLinear(layer, 1, 2, alpha=6.0, top_k=1))
    experts = adapter.experts
    weight = layer.weight + 3.0 * experts.up[0, 0].T @ experts.down[0, 0]
    x = torch.randn(4, 3, D_IN)
    torch.testing.assert_close(adapter(x), F.linear(x, weight, layer.bias))


def test_experts_without_a_gate_get_no_gradient():
    experts = shaken(Experts(D_IN, D_OUT, 3, 2, top_k=1))
    x = torch.randn(1, 1, D_IN)
    chosen = int(experts.router(x).argmax())
    experts(x, [torch.zeros(1, 1, D_OUT)])[0].sum().backward()
    moved = experts.up.grad.abs().sum(dim=(0, 2, 3)) > 0
    assert moved.tolist() == [n == chosen for n in range(3)]


def test_routing_stays_in_float32_under_autocast():
    layers = frozen(3)
    adapter = shaken(JointExpertLinear(layers, 4, 2))
    router, x = adapter.experts.router, torch.randn(2, 6, D_IN)
    exact, decisions = adapter(x), {}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = adapter(x, tokens_of(x, decisions=decisions))
        gates = router(x)
    assert {y.dtype for y in outputs} == {torch.bfloat16}
    assert {t.dtype for t in (*decisions[router], gates)} == {torch.float32}
    torch.testing.assert_close(gates, router(x))
    for y, wanted in zip(outputs, exact, strict=True):
        torch.testing.assert_close(y.float(), wanted, atol=0.1, rtol=0.05)


def test_double_precision_stays_double():
    adapter = shaken(ExpertLinear(nn.Linear(D_IN, D_OUT), 4, 2)).double()
    assert adapter(torch.randn(2, 6, D_IN, dtype=torch.float64)).dtype == torch.float64


def test_dropout_spares_the_router_and_the_frozen_layer():
    (layer,) = frozen(1)
    adapter = shaken(ExpertLinear(layer, 4, 2, dropout=1.0)).train()
    router, x = adapter.experts.router, torch.randn(2, 6, D_IN)
    decisions = {}
    assert torch.equal(adapter(x, tokens_of(x, decisions=decisions)), layer(x))
    torch.testing.assert_close(decisions[router][1], router(x))
    adapter.eval()
    assert not torch.equal(adapter(x), layer(x))


@pytest.mark.parametrize("n_linears", [1, 3])
def test_instances_are_never_routed_without_their_mask(n_linears):
    layers = frozen(n_linears)
    adapter = JointExpertLinear(layers, 4, 2, level="instance")
    if n_linears == 1:
        adapter = ExpertLinear(layers[0], 4, 2, level="instance")
    with pytest.raises(RuntimeError, match="with the tokens of its layer"):
        adapter(torch.randn(2, 6, D_IN))


def test_joint_linears_of_different_shapes_are_refused():
    with pytest.raises(
        ValueError, match=r"must have one .* got \[\(7, 5\), \(7, 6\)\]"
    ):
        JointExpertLinear([nn.Linear(7, 5), nn.Linear(7, 6)], 3, 2)
