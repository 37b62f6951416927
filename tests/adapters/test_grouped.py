"""Pools of several tasks in one batch are each task's pools on its rows."""

import pytest
import torch

from robustmm.adapters import FactorPools, GroupedPools, StaticFactors

ROWS = torch.tensor([4, 0]), torch.tensor([1]), torch.tensor([3, 2])


def pools_of(kind):
    options = {"pool_size": 5} if kind is FactorPools else {}
    made = [kind(8, 6, n_linears=3, rank=2, **options) for _ in ROWS]
    for pools in made:
        torch.nn.init.normal_(pools.up)
    return made


@pytest.mark.parametrize("kind", [FactorPools, StaticFactors])
def test_each_row_gets_the_update_of_its_own_pools(kind):
    pools, query, x = pools_of(kind), torch.randn(5, 2, 8), torch.randn(5, 7, 8)
    grouped = GroupedPools(list(zip(ROWS, pools, strict=True)))
    selection = grouped.route(query) if kind is FactorPools else None
    update = grouped(x, selection)
    for rows, own in zip(ROWS, pools, strict=True):
        chosen = own.route(query[rows]) if kind is FactorPools else None
        torch.testing.assert_close(update[:, rows], own(x[rows], chosen))
        if chosen is not None:
            assert torch.equal(selection.down[rows], chosen.down)
            assert torch.equal(selection.up[rows], chosen.up)
