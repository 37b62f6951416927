"""Statistics of a batch that several processes compute together, a part each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

# Of the step that runs now in this thread: what adds up tensors of all processes, and
# the part of the rows that are here. None where one process computes all.
_STEP: ContextVar[tuple[Callable, float] | None] = ContextVar("step", default=None)


@contextmanager
def part_of_batch(add: Callable[[Tensor], Tensor], part: float) -> Iterator[None]:
    """Say inside the block that a batch is a part of one that is spread.

    Every process must ask for the same statistics in the same order.

    Parameters
    ----------
    add : callable (Tensor) -> Tensor
        Returns the sum of what the processes pass.
    part : float
        The part of the rows that are here. Of zero, what this process passes does not
        count: it runs along on a row that is another's.
    """
    token = _STEP.set((add, part))
    try:
        yield
    finally:
        _STEP.reset(token)


def over_batch(values: Tensor) -> Tensor:
    """Return the sum of the values of all parts of a batch, without gradient.

    Where one process computes the batch these are the values themselves.

    Examples
    --------
    >>> import torch
    >>> over_batch(torch.tensor([2.0]))
    tensor([2.])
    >>> with part_of_batch(lambda values: 3 * values, part=0.5):
    ...     over_batch(torch.tensor([2.0]))
    tensor([6.])
    """
    step = _STEP.get()
    if step is None:
        return values.detach()
    add, part = step
    return add(values.detach() * (part > 0))


def as_mean(total: Tensor) -> Tensor:
    """Return what a part adds to a statistic as a term of a mean over the parts.

    A penalty is weighted by the part of the rows that it is of. A sum over rows that
    was divided by a number of the whole batch has to be one of the rows that are here.

    Examples
    --------
    >>> import torch
    >>> with part_of_batch(lambda values: values, part=0.25):
    ...     as_mean(torch.tensor(1.0))
    tensor(4.)
    """
    step = _STEP.get()
    # On a row that does not count, any number will do but infinity.
    return total if step is None or step[1] == 0 else total / step[1]


def weight_of_mean(count: int, like: Tensor) -> Tensor | float:
    """Return what a mean over some rows of this part counts for, 1 where this is all.

    With it, a penalty that is a mean over the complete rows, say, is that over those of
    all parts. Where there are none here their mean is to be zero, but this has to be
    asked all the same.

    Parameters
    ----------
    count : int
        How many such rows are here.
    like : Tensor
        Of the type and on the device that is computed with.

    Examples
    --------
    >>> import torch
    >>> weight_of_mean(3, like=torch.zeros(()))
    1.0
    >>> with part_of_batch(lambda count: count + 1, part=0.5):
    ...     weight_of_mean(3, like=torch.zeros(()))
    tensor(1.5000)
    """
    step = _STEP.get()
    if step is None:
        return 1.0
    total = over_batch(like.new_tensor(float(count)))
    return as_mean(count / total.clamp(min=1))


def mean_of_rows(values: Tensor) -> Tensor:
    """Return the mean over all rows of a batch, (...), without gradient.

    Parameters
    ----------
    values : Tensor of shape (B, ...)
        Of the rows that are here.

    Examples
    --------
    >>> import torch
    >>> mean_of_rows(torch.tensor([1.0, 3.0]))
    tensor(2.)
    """
    if _STEP.get() is None:
        return values.detach().mean(dim=0)
    count = over_batch(values.new_tensor(float(len(values))))
    return over_batch(values.sum(dim=0)) / count
