"""Factor pools against the update written out for one sample at a time."""

import numpy as np
import pytest
import torch
from torch import nn

from robustmm.adapters import (
    FactorLinears,
    FactorPools,
    Selection,
    StaticFactors,
    count_factors,
    factor_frame,
)
from robustmm.backbones import Tokens

D_IN, D_OUT, N_LINEARS, N_QUERIES, BATCH, LENGTH = 8, 6, 3, 2, 5, 7


def build(**options):
    settings = {"n_linears": N_LINEARS, "pool_size": 6, "rank": 3} | options
    pools = FactorPools(D_IN, D_OUT, **settings)
    nn.init.normal_(pools.up)
    return pools


def inputs():
    return torch.randn(BATCH, LENGTH, D_IN), torch.randn(BATCH, N_QUERIES, D_IN)


def dense_update(pools, selection, sample, linear):
    """Equations 2 and 4: the matrix that is added to one linear for one sample."""
    total = torch.zeros(D_OUT, D_IN)
    for query in range(N_QUERIES):
        pool = min(query, pools.down.shape[1] - 1)
        for k in range(pools.rank):
            a = pools.down[linear, pool, selection.down[sample, linear, query, k]]
            b = pools.up[linear, pool, selection.up[sample, linear, query, k]]
            total += selection.weight[sample, linear, query, k] * b.T @ a
    return total


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("factor_rank", [1, 2])
@pytest.mark.parametrize("gradient", ["straight_through", "score"])
def test_update_is_the_sum_of_selected_products(shared, factor_rank, gradient):
    pools = build(shared=shared, factor_rank=factor_rank, gradient=gradient)
    x, query = inputs()
    selection = pools.route(query)
    update = pools(x, selection)
    assert update.shape == (N_LINEARS, BATCH, LENGTH, D_OUT)
    for sample in range(BATCH):
        for linear in range(N_LINEARS):
            expected = x[sample] @ dense_update(pools, selection, sample, linear).T
            torch.testing.assert_close(update[linear, sample], expected)


@pytest.mark.parametrize("shared", [False, True])
def test_selection_is_equation_3_and_its_conditional_form(shared):
    pools = build(shared=shared)
    _, query = inputs()
    selection = pools.route(query)
    for sample in range(BATCH):
        for linear in range(N_LINEARS):
            for q in range(N_QUERIES):
                at = linear, (0 if shared else q)
                logits = [
                    pools.router_weight[(side, *at)] @ query[sample, q]
                    + pools.router_bias[(side, *at)]
                    for side in range(2)
                ]
                down = logits[0].softmax(0).topk(3).indices
                scores = logits[1].softmax(0)
                for k, a in enumerate(down):
                    factor = pools.down[at][a, 0]
                    scores = scores + (factor @ pools.affinity[at][k]).softmax(0)
                up = scores.topk(3).indices
                assert torch.equal(selection.down[sample, linear, q], down)
                assert torch.equal(selection.up[sample, linear, q], up)


def test_pools_start_without_an_update():
    pools = FactorPools(D_IN, D_OUT, n_linears=2, pool_size=4, rank=2)
    x, query = inputs()
    assert (pools(x, pools.route(query)) == 0).all()
    assert pools.down.std().item() == pytest.approx(D_IN**-0.5, rel=0.3)


@pytest.mark.parametrize(
    ("gradient", "moves"),
    [("straight_through", True), ("score", True), ("none", False)],
)
def test_how_routers_learn(gradient, moves):
    pools = build(gradient=gradient)
    x, query = inputs()
    pools(x, pools.route(query)).square().sum().backward()
    for name in ("router_weight", "router_bias", "affinity"):
        grad = getattr(pools, name).grad
        assert (grad is not None and bool(grad.abs().sum() > 0)) == moves
    for name in ("down", "up"):
        assert getattr(pools, name).grad.abs().sum() > 0


def test_straight_through_is_binary_forward():
    _, query = inputs()
    for gradient in ("straight_through", "none"):
        assert (build(gradient=gradient).route(query).weight == 1).all()
    weight = build(gradient="score").route(query).weight
    assert not (weight == 1).any()
    # Relative to its mean, each of the two scores averages to one over the selected.
    assert weight.mean().item() == pytest.approx(1, abs=0.2)


def test_only_selected_factors_get_a_gradient():
    pools = build()
    x, query = inputs()
    selection = pools.route(query[:1])
    pools(x[:1], selection).square().sum().backward()
    touched = pools.up.grad.abs().sum(dim=(3, 4)) > 0  # (J, Q, E)
    expected = torch.zeros_like(touched).scatter(2, selection.up[0], True)
    assert torch.equal(touched, expected)


def test_samples_do_not_see_each_other():
    pools = build()
    x, query = inputs()
    together = pools(x, pools.route(query))
    alone = pools(x[2:3], pools.route(query[2:3]))
    torch.testing.assert_close(alone, together[:, 2:3])


def test_routing_ignores_autocast():
    pools = build()
    _, query = inputs()
    expected = pools.route(query)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        selection = pools.route(query)
        update = pools(torch.randn(BATCH, LENGTH, D_IN), selection)
    assert torch.equal(selection.up, expected.up)
    assert update.dtype == torch.bfloat16


def test_static_factors_are_lora():
    static = StaticFactors(D_IN, D_OUT, n_linears=N_LINEARS, rank=2)
    x, _ = inputs()
    assert (static(x) == 0).all()
    nn.init.normal_(static.up)
    for linear, update in enumerate(static(x)):
        expected = x @ static.down[linear].T @ static.up[linear]
        torch.testing.assert_close(update, expected)


def test_linears_add_the_update_and_are_never_bypassed():
    frozen = [nn.Linear(D_IN, D_OUT) for _ in range(N_LINEARS)]
    adapter, pools = FactorLinears(frozen, alpha=2.0), build()
    x, query = inputs()
    tokens = Tokens(x, None, {"text": (0, LENGTH)})
    selection = pools.route(query)
    kept = dict(vars(adapter))
    outputs = adapter(x, tokens.with_context(factors=(pools, selection)))
    update = pools(x, selection)
    for linear, output in enumerate(outputs):
        torch.testing.assert_close(output, frozen[linear](x) + 2 * update[linear])
    assert vars(adapter) == kept
    with pytest.raises(
        RuntimeError, match=r"pools .* as 'factors', got the items \[\]"
    ):
        adapter(x)
    with pytest.raises(RuntimeError, match=r"got the items \['other'\]"):
        adapter(x, tokens.with_context(other=1))


def test_linears_do_not_take_the_pools_of_others():
    frozen = [nn.Linear(D_IN, D_OUT) for _ in range(N_LINEARS)]
    adapter, pools = FactorLinears(frozen, 2.0, source="factors_1"), build()
    x, query = inputs()
    tokens = Tokens(x, None, {"text": (0, LENGTH)})
    tokens = tokens.with_context(factors_0=(pools, pools.route(query)))
    with pytest.raises(RuntimeError, match=r"as 'factors_1', .* \['factors_0'\]"):
        adapter(x, tokens)


def test_selections_are_picked_with_their_samples():
    """Tokens that are cut to some samples give each the update it had before."""
    frozen = [nn.Linear(D_IN, D_OUT) for _ in range(N_LINEARS)]
    adapter, pools = FactorLinears(frozen, alpha=2.0), build()
    x, query = inputs()
    tokens = Tokens(x, None, {"text": (0, LENGTH)})
    tokens = tokens.with_context(factors=(pools, pools.route(query)))
    index = torch.tensor([3, 0, 3])
    some = adapter(x[index], tokens.select(index))
    for part, whole in zip(some, adapter(x, tokens), strict=True):
        torch.testing.assert_close(part, whole[index])


def test_rank_beyond_the_pool_is_refused():
    with pytest.raises(ValueError, match=r"rank must be in \[1, pool_size=2\], got 3"):
        FactorPools(4, 4, pool_size=2, rank=3)


def test_frequencies_are_means_over_the_rows_of_each_task():
    counts = np.arange(24.0).reshape(3, 8)  # two queries, a and b, two factors
    frame = factor_frame(counts, np.array([2.0, 0, 2]), 3, ("image", "text"))
    assert frame.index.tolist() == [(t, f) for t in range(3) for f in range(2)]
    assert frame.columns.names == ["modality", "side"]
    mean = (counts[0] + counts[2]) / 2
    np.testing.assert_array_equal(frame.loc[2, ("image", "a")], mean[:2])
    np.testing.assert_array_equal(frame.loc[2, ("image", "b")], mean[2:4])
    np.testing.assert_array_equal(frame.loc[2, ("text", "b")], mean[6:])
    np.testing.assert_array_equal(frame.loc[0, ("text", "a")], counts[1, 4:6])
    assert frame.loc[1].isna().all().all()


def test_selections_are_counted_by_query_and_side():
    # Two layers, a sample, two linears, a query that selects two of three factors.
    down = torch.tensor([[[[0, 1]], [[0, 2]]]])
    up = torch.tensor([[[[2, 1]], [[2, 0]]]])
    same = Selection(down, up, torch.ones(1, 2, 1, 2))
    counts = count_factors([same, same], 3)
    assert counts.tolist() == [[1, 0.5, 0.5, 0.5, 0.5, 1]]


def test_counts_add_up_to_the_rank_for_every_query_and_side():
    selection = build().route(inputs()[1])
    counts = count_factors([selection], 6)
    assert counts.shape == (BATCH, N_QUERIES * 2 * 6)
    sums = counts.reshape(BATCH, N_QUERIES * 2, 6).sum(dim=2)
    torch.testing.assert_close(sums, torch.full((BATCH, 4), 3.0))


def test_pools_that_are_said_to_be_none_leave_the_frozen_linears():
    linears = [torch.nn.Linear(8, 6) for _ in range(2)]
    adapted, x = FactorLinears(linears, alpha=1.0), torch.randn(3, 5, 8)
    context = {"factors": (None, None)}
    outputs = adapted(x, Tokens(x, None, {"text": (0, 5)}, context=context))
    for output, linear in zip(outputs, linears, strict=True):
        assert torch.equal(output, linear(x))
