"""Parts of steps: all rows once, in the order of one process."""

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader

from robustmm.training.device import RandomStream
from robustmm.training.processes import ALONE, Processes
from robustmm.training.shares import (
    Share,
    SharedBatches,
    average_gradients,
    in_order,
    own_stream,
    shared_loader,
)


def test_the_parts_of_a_step_are_its_rows():
    for n in range(1, 12):
        for size in range(1, 5):
            rows = list(range(100, 100 + n))
            shares = [Share(rows, rank, size) for rank in range(size)]
            counted = [row for share in shares for row in rows[share.place]]
            assert counted == rows
            assert sum(share.part for share in shares) == pytest.approx(1)
            lengths = [len(rows[share.place]) for share in shares]
            assert max(lengths) - min(lengths) <= 1
            assert all(share.own for share in shares)


@pytest.mark.parametrize("options", [{"shuffle": True}, {}, {"drop_last": True}])
def test_loaders_together_have_the_steps_of_one(options):
    data, seed = torch.arange(23), 7

    def draw(loader):
        torch.manual_seed(seed)
        return [batch.tolist() for batch in loader]

    whole = draw(DataLoader(data, batch_size=6, **options))
    loaders = [
        shared_loader(data, {"batch_size": 2, **options}, Processes(rank, 3))
        for rank in range(3)
    ]
    parts = [draw(loader) for loader in loaders]
    # Of the last step, of five rows, the first process has one, the others two.
    assert [sum(step, []) for step in zip(*parts, strict=True)] == whole  # noqa: RUF017
    assert [len(loader) for loader in loaders] == [len(whole)] * 3


def test_a_process_without_rows_runs_along():
    sampler = SharedBatches(BatchSampler(range(5), 4, False), Processes(0, 4))
    assert list(sampler) == [[0], [4]]
    assert [share.part for share in sampler.shares] == [0.25, 0.0]


def test_a_batch_sampler_of_the_users_is_refused():
    options = {"batch_size": 2, "batch_sampler": [[0]]}
    with pytest.raises(ValueError, match="must not have iterator_train__batch_sampler"):
        shared_loader(torch.arange(3), options, Processes(0, 2))


class Pair(Processes):
    """The first of two processes, of which the other passes what was prepared."""

    def __init__(self, others):
        super().__init__(0, 2)
        self.others = iter(others)

    def add(self, values):
        return values + next(self.others)


def test_gradients_are_those_of_the_whole_step():
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (2, 3, 1)]
    parameters[0].grad = torch.tensor([1.0, 2.0])
    # The other one has 3 of 4 rows, and a gradient of the second parameter, too.
    small = torch.tensor([3.0, 1.0, 1.0, 0.0])
    flat = torch.tensor([6.0, 0.0, 1.0, 1.0, 1.0])
    pair = Pair([small, flat])
    loss = average_gradients(parameters, torch.tensor(4.0), 0.25, pair)
    assert float(loss) == 4.0
    assert parameters[0].grad.tolist() == [6.25, 0.5]
    assert parameters[1].grad.tolist() == [1.0, 1.0, 1.0]
    assert parameters[2].grad is None


def test_what_a_process_draws_alone():
    draws = RandomStream(0, torch.device("cpu"))
    before = draws.states[0].clone()
    seeds = set()
    for rank in range(3):
        with own_stream(draws, Processes(rank, 3)).lent():
            seeds.add(float(torch.rand(1)))
    assert len(seeds) == 3
    assert draws.states[0].equal(before)


def test_batches_that_were_dealt():
    batches = list("abcdefg")
    for size in range(1, 9):
        assert in_order([batches[rank::size] for rank in range(size)]) == batches


def test_one_process_adds_nothing():
    values = torch.ones(2)
    assert ALONE.add(values) is values
