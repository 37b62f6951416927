"""What several processes compute of a batch is what one would of all of it."""

import threading

import pytest
import torch

from robustmm.adapters import TaskKey, balance_loss
from robustmm.adapters.whole_batch import (
    as_mean,
    mean_of_rows,
    over_batch,
    part_of_batch,
    weight_of_mean,
)


class Sums:
    """Adds up what threads pass that stand for processes."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size, timeout=20)
        self.passed = {}

    def add(self, values):
        self.passed[threading.get_ident()] = values
        self.barrier.wait()
        total = sum(self.passed.values())
        self.barrier.wait()
        return total


def shared(function, parts, shares):
    """Call a function in a thread for each part; return the results."""
    sums, found, failed = Sums(len(parts)), [None] * len(parts), []

    def call(i):
        try:
            with part_of_batch(sums.add, shares[i]):
                found[i] = function(*parts[i])
        except BaseException as error:
            failed.append(error)
            sums.barrier.abort()

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    return found


def tensors(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


CUTS = {"even": (3, 3), "ragged": (4, 2), "one has none": (0, 6)}


def cut(values, sizes):
    """Parts of rows; one who has none runs along on the first row."""
    parts, start = [], 0
    for size in sizes:
        parts.append(values[start : start + size] if size else values[:1])
        start += size
    return parts


@pytest.mark.parametrize("sizes", CUTS.values(), ids=CUTS)
def test_the_balance_of_experts_and_its_gradient(sizes):
    probabilities = tensors(6, 4, 1, 3).softmax(dim=-1).requires_grad_()
    gates = probabilities.detach() * (tensors(6, 4, 1, 3, seed=1) > 0.4)
    counted = (tensors(6, 4, 1, seed=2) > 0.2).float()
    whole = balance_loss(probabilities, gates, counted)
    (expected,) = torch.autograd.grad(whole, probabilities)
    shares = [size / 6 for size in sizes]
    columns = [cut(values, sizes) for values in (probabilities, gates, counted)]
    found = shared(balance_loss, list(zip(*columns, strict=True)), shares)
    total = sum(share * loss for share, loss in zip(shares, found, strict=True))
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(torch.autograd.grad(total, probabilities)[0], expected)


@pytest.mark.parametrize("sizes", CUTS.values(), ids=CUTS)
def test_a_mean_over_some_rows(sizes):
    values = tensors(6).requires_grad_()
    some = torch.tensor([True, False, False, False, True, True])

    def penalty(values, some):
        weight = weight_of_mean(int(some.sum()), values)
        return weight * values[some].mean() if some.any() else values.new_zeros(())

    shares = [size / 6 for size in sizes]
    parts = list(zip(cut(values, sizes), cut(some, sizes), strict=True))
    found = shared(penalty, parts, shares)
    total = sum(share * value for share, value in zip(shares, found, strict=True))
    torch.testing.assert_close(total, values[some].mean())
    gradient = torch.autograd.grad(total, values)[0]
    torch.testing.assert_close(gradient, some.float() / 3)


@pytest.mark.parametrize("sizes", CUTS.values(), ids=CUTS)
def test_means_that_a_module_keeps(sizes):
    query, present = tensors(6, 2, 4), tensors(6, 2, seed=1) > 0.3
    shares = [size / 6 for size in sizes]
    for mean in shared(mean_of_rows, [(p,) for p in cut(query, sizes)], shares):
        torch.testing.assert_close(mean, query.mean(dim=0))

    def key(query, present):
        key = TaskKey(width=4)
        key.update(query, present)
        return key.mean

    parts = list(zip(cut(query, sizes), cut(present, sizes), strict=True))
    for mean in shared(key, parts, shares):
        torch.testing.assert_close(mean, key(query, present))


def test_alone_nothing_changes():
    values = tensors(3)
    assert over_batch(values).equal(values)
    assert as_mean(values) is values
    assert weight_of_mean(2, values) == 1.0
    assert mean_of_rows(values).equal(values.mean(dim=0))


def test_it_ends_with_the_block():
    with pytest.raises(KeyError), part_of_batch(lambda values: values, 0.5):
        raise KeyError
    assert weight_of_mean(2, tensors(1)) == 1.0
