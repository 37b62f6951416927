"""What each of several processes computes of a step, and how the parts are joined."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler

from .device import RandomStream
from .processes import Processes, current

# Gradients travel in pieces of at most so many numbers, 64 MiB.
_MOST_NUMBERS = 2**24


@dataclass(frozen=True)
class Share:
    """The rows of one step, and those of them that one process computes.

    Parameters
    ----------
    rows : list of int
        Positions of all rows of the step, in its order.
    rank, size : int
        Which process this is, of how many.

    Examples
    --------
    >>> share = Share([7, 3, 5], rank=1, size=2)
    >>> share.own, round(share.part, 2)
    ([3, 5], 0.67)
    >>> Share([7], rank=0, size=2).own, Share([7], rank=0, size=2).part
    ([7], 0.0)
    """

    rows: list[int]
    rank: int
    size: int

    @property
    def place(self) -> slice:
        """Where the own rows stand among those of the step."""
        n = len(self.rows)
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    @property
    def own(self) -> list[int]:
        """The rows that this process computes: at least one, which may not count."""
        return self.rows[self.place] or self.rows[:1]

    @property
    def part(self) -> float:
        """The part of the step's rows that are the own ones; zero if none is."""
        return len(self.rows[self.place]) / len(self.rows)


class SharedBatches(Sampler):
    """Of the steps that one process would take, the rows that are this one's.

    Parameters
    ----------
    steps : BatchSampler
        Which rows belong to which step; the same in all processes.
    processes : Processes

    Attributes
    ----------
    shares : deque of Share
        Of the batches that were asked for and not taken yet.
    """

    def __init__(self, steps: BatchSampler, processes: Processes):
        self.steps = steps
        self.rank, self.size = processes.rank, processes.size
        self.shares: deque[Share] = deque()

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        self.shares.clear()
        for rows in self.steps:
            share = Share(rows, self.rank, self.size)
            self.shares.append(share)
            yield share.own


def shared_loader(dataset: Dataset, options: dict, processes: Processes) -> DataLoader:
    """Return a loader of this process' shares, in the order of a single process.

    Parameters
    ----------
    dataset : Dataset
    options : dict
        Of the loader of a single process; ``batch_size`` is the rows of this one.
    processes : Processes
    """
    options = dict(options)
    if "batch_sampler" in options:
        raise ValueError(
            "net_params must not have iterator_train__batch_sampler where several "
            "processes train: each takes its part of a step."
        )
    size, sampler = options.pop("batch_size"), options.pop("sampler", None)
    shuffle, drop = options.pop("shuffle", False), options.pop("drop_last", False)
    if sampler is None and shuffle:
        # As DataLoader makes it, which draws the same numbers then.
        sampler = RandomSampler(dataset, generator=options.get("generator"))
    sampler = range(len(dataset)) if sampler is None else sampler
    steps = BatchSampler(sampler, size * processes.size, drop)
    return DataLoader(dataset, batch_sampler=SharedBatches(steps, processes), **options)


def average_gradients(
    parameters: list[nn.Parameter], loss: Tensor, part: float, processes: Processes
) -> Tensor:
    """Make gradients those of the whole step, and return the loss of it.

    A parameter that no process has a gradient of gets none.

    Parameters
    ----------
    parameters : list of Parameter
        Those that are trained, the same in all processes.
    loss : Tensor
        The mean over the rows of this process, a scalar.
    part : float
        The part of the step's rows that these are.
    """
    # First what is small, on the CPU: where a process is gone, NCCL would wait for it.
    used = [float(p.grad is not None) for p in parameters]
    small = processes.add(torch.tensor([part * float(loss.detach()), *used]))
    wanted = [
        p for p, count in zip(parameters, small[1:].tolist(), strict=True) if count
    ]
    for piece in _pieces(wanted):
        flat = torch.cat([_gradient(p).flatten() for p in piece]) * part
        flat = processes.add(flat)
        sizes = [p.numel() for p in piece]
        for p, gradient in zip(piece, flat.split(sizes), strict=True):
            p.grad = gradient.view_as(p).to(p.dtype)
    return small[0].to(loss)


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _pieces(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    piece, numbers = [], 0
    for parameter in parameters:
        if piece and numbers + parameter.numel() > _MOST_NUMBERS:
            yield piece
            piece, numbers = [], 0
        piece.append(parameter)
        numbers += parameter.numel()
    if piece:
        yield piece


def own_stream(draws: RandomStream, processes: Processes) -> RandomStream:
    """Return what this process alone draws from, given where all of them are."""
    about = draws.states[0].numpy().tobytes() + f"rank {processes.rank}".encode()
    seed = int.from_bytes(blake2b(about, digest_size=7).digest())
    return RandomStream(seed, draws.device)


def read_batches(
    net, rows: Dataset, read: Callable, advance: Callable | None = None
) -> list:
    """Return what is read of each batch of rows, in their order, in all processes.

    Every process reads every so manyth batch, and tells the others.

    Parameters
    ----------
    net : Net
    rows : Dataset
    read : callable (batch, targets)
        What it returns is sent as a pickle.
    advance : callable (int), optional
        Told of how many rows a batch was.
    """
    found = []
    for batch, targets in own_batches(net, rows):
        found.append(read(batch, targets))
        if advance is not None:
            advance(len(targets))
    return in_order(current().gather(found))


def own_batches(net, rows: Dataset):
    """Return this process' batches of those that one process would make."""
    processes = current()
    if processes.size == 1:
        return net.get_iterator(rows, training=False)
    options = net.get_params_for("iterator_valid")
    size = options.pop("batch_size", net.batch_size)
    for name in ("shuffle", "sampler", "drop_last"):
        options.pop(name, None)
    places = [
        list(range(i, min(i + size, len(rows)))) for i in range(0, len(rows), size)
    ]
    own = places[processes.rank :: processes.size]
    return DataLoader(rows, batch_sampler=own, **options)


def in_order(parts: list[list]) -> list:
    """Deal batches back that were dealt out: the first of each process, the second...

    Examples
    --------
    >>> in_order([["a", "c", "e"], ["b", "d"]])
    ['a', 'b', 'c', 'd', 'e']
    """
    total = sum(map(len, parts))
    return [parts[i % len(parts)][i // len(parts)] for i in range(total)]
