"""Routers, the load-balancing loss, and the table of what was chosen."""

import numpy as np
import pytest
import torch

from robustmm.adapters import Router, Routing, balance_loss, usage_frame
from robustmm.backbones import Tokens

D_IN = 7


def tokens_of(x, mask=None, **context):
    """Tokens of a layer whose input is as long as x."""
    return Tokens(x, mask, {"text": (0, x.shape[1])}).with_context(**context)


def test_every_expert_chosen_is_soft_merging():
    hard, soft = Router(D_IN, 4, top_k=4), Router(D_IN, 4, top_k=None)
    soft.load_state_dict(hard.state_dict())
    x = torch.randn(2, 6, D_IN)
    torch.testing.assert_close(hard(x), soft(x))


def test_gates_are_sparse_and_sum_to_one_for_two_and_more():
    gates = Router(D_IN, 5, 3, top_k=2)(torch.randn(4, 6, D_IN))
    assert gates.shape == (4, 6, 3, 5)
    assert ((gates > 0).sum(dim=-1) == 2).all()
    torch.testing.assert_close(gates.sum(dim=-1), torch.ones(4, 6, 3))


def test_a_single_gate_keeps_its_probability_and_its_gradient():
    router = Router(D_IN, 5, top_k=1)
    gates = router(torch.randn(4, 6, D_IN))
    assert (gates.sum(dim=-1) < 1).all()
    gates.sum().backward()
    assert router.weight.grad.abs().sum() > 0


def test_instance_router_needs_all_tokens_and_their_mask():
    router = Router(D_IN, 4, level="instance")
    x = torch.randn(2, 6, D_IN)
    assert router(x, tokens_of(x)).shape == (2, 1, 1, 4)
    with pytest.raises(
        RuntimeError, match=r"must be called with the tokens .* got none"
    ):
        router(x)
    with pytest.raises(RuntimeError, match=r"must read all 6 tokens .*, got 1: run"):
        router(x[:, :1], tokens_of(x))


def test_padding_does_not_route_an_instance():
    router = Router(D_IN, 4, level="instance")
    x, other = torch.randn(2, 2, 6, D_IN)
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    other = torch.where(mask[..., None], x, other)
    expected = router(x, tokens_of(x, mask))
    torch.testing.assert_close(router(other, tokens_of(other, mask)), expected)
    assert not torch.allclose(router(other, tokens_of(other)), expected)


@pytest.mark.parametrize("level", ["token", "instance"])
def test_decisions_are_collected_where_the_context_asks_for_them(level):
    routers = [Router(D_IN, 4, 2, top_k=1, level=level) for _ in range(2)]
    x, decisions = torch.randn(2, 6, D_IN), {}
    kept = [dict(vars(router)) for router in routers]
    asking = tokens_of(x, decisions=decisions)
    gates = [router(x, asking) for router in routers]
    assert list(decisions) == routers
    for router, expected in zip(routers, gates, strict=True):
        probabilities, found = decisions[router]
        assert found is expected
        torch.testing.assert_close(
            probabilities.sum(dim=-1), torch.ones(found.shape[:3])
        )
        torch.testing.assert_close(found.amax(dim=-1), probabilities.amax(dim=-1))
    decisions.clear()
    routers[0](x, tokens_of(x))
    assert not decisions
    assert [vars(router) for router in routers] == kept


def test_balance_loss_is_its_equation():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 3.0], [5.0, 0.0, 0.0]])
    probabilities = logits.softmax(dim=-1).view(1, 3, 1, 3)
    gates = torch.zeros(1, 3, 1, 3)
    for token, chosen in enumerate([(0, 2), (1, 2), (0, 1)]):
        gates[0, token, 0, list(chosen)] = 0.5
    counted = torch.tensor([[1.0, 1.0, 0.0]]).unsqueeze(-1)
    share = torch.tensor([1 / 4, 1 / 4, 2 / 4])
    expected = 3 * (share * probabilities[0, :2, 0].mean(dim=0)).sum()
    torch.testing.assert_close(balance_loss(probabilities, gates, counted), expected)


def test_an_even_load_has_balance_one():
    gates = torch.eye(4).view(1, 4, 1, 4)
    even = torch.full((1, 4, 1, 4), 0.25)
    assert balance_loss(even, gates, torch.ones(1, 4, 1)) == pytest.approx(1.0)


def test_unusable_settings_are_named():
    with pytest.raises(ValueError, match=r"top_k must be in \[1, n_experts=3\], got 4"):
        Router(D_IN, 3, top_k=4)
    with pytest.raises(ValueError, match=r"level must be one of .*'sentence'"):
        Router(D_IN, 3, level="sentence")


def test_sums_count_decisions_choices_and_gates():
    gates = torch.tensor([[[[0.75, 0.25, 0.0]], [[0.0, 0.5, 0.5]], [[1.0, 0.0, 0.0]]]])
    counted = torch.tensor([[1.0, 1.0, 0.0]]).unsqueeze(-1)
    routing = Routing(2, ("up",), gates, gates, counted)
    expected = [[[2.0, 1.0, 0.75], [2.0, 2.0, 0.75], [2.0, 1.0, 0.5]]]
    torch.testing.assert_close(routing.sums(), torch.tensor(expected))


def test_usage_adds_up_the_rows_of_each_pattern():
    present = np.array([[1, 1], [0, 1], [0, 1], [0, 0], [1, 0]], dtype=bool)
    sums = np.zeros((5, 1, 3))
    sums[:, 0] = [[4, 1, 0.5], [2, 2, 1.0], [8, 1, 0.25], [0, 0, 0], [4, 4, 4.0]]
    usage = usage_frame(sums, present, [(3, "up", 1)])
    assert usage.to_dict("list") == {
        "pattern": ["complete", "text_missing", "image_missing"],
        "layer": [3] * 3,
        "linear": ["up"] * 3,
        "expert": [1] * 3,
        "frequency": [0.25, 1.0, 0.3],
        "weight": [0.125, 1.0, 0.125],
    }
    one = usage_frame(sums[1:4], present[1:4], [(3, "up", 1)])
    assert list(one["pattern"]) == ["image_missing"]
