"""A memory of earlier rows: a reservoir, in which each has the same chance to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn


class Remembered(NamedTuple):
    """Rows of a memory: states (b, L, d), mask (b, L), stages (b,), targets (b, W)."""

    states: Tensor
    mask: Tensor
    stages: Tensor
    targets: Tensor


class ReservoirMemory(nn.Module):
    """Rows of earlier stages, as what a frozen part of the model makes of them [1]_.

    A row is a sequence of vectors of its own length, one after another in one buffer,
    with the stage it came from and its targets there. Only vectors move to a device:
    which rows to replay is planned on the CPU, so that nobody waits.

    Parameters
    ----------
    width : int
        Entries of a vector, d.
    n_rows, n_states, n_targets : int
        Rows, vectors of all rows together, and targets per row: the sizes of what is
        loaded into it, as :attr:`sizes` returned them.

    References
    ----------
    .. [1] Chaudhry et al., "On Tiny Episodic Memories in Continual Learning",
       arXiv:1902.10486, 2019.

    Examples
    --------
    >>> memory = ReservoirMemory(width=2)
    >>> rows = [torch.ones(3, 2), torch.zeros(1, 2)]
    >>> memory.put({0: 0, 1: 1}, rows, stage=0, targets=torch.tensor([[1], [0]]))
    >>> found = memory.take(torch.tensor([1, 0]))
    >>> found.states.shape, found.mask.sum(dim=1), memory.sizes
    (torch.Size([2, 3, 2]), tensor([1, 3]), (2, 4, 1))
    """

    def __init__(
        self, width: int, n_rows: int = 0, n_states: int = 0, n_targets: int = 1
    ):
        super().__init__()
        whole = {"dtype": torch.int64}
        self.register_buffer("states", torch.zeros(n_states, width))
        self.register_buffer("lengths", torch.zeros(n_rows, **whole))
        self.register_buffer("stages", torch.zeros(n_rows, **whole))
        self.register_buffer("targets", torch.zeros(n_rows, n_targets, **whole))
        self.register_buffer("seen", torch.zeros((), **whole))

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Rows, vectors and targets per row."""
        return len(self), len(self.states), self.targets.shape[1]

    def _apply(self, fn, recurse: bool = True) -> Self:
        self.states = fn(self.states)
        return self

    def plan(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the vectors of rows are, (b, L), and which of these count."""
        lengths = self.lengths[positions]
        starts = (self.lengths.cumsum(0) - self.lengths)[positions]
        place = torch.arange(int(lengths.max()))
        mask = place < lengths[:, None]  # (b, L)
        return (starts[:, None] + place).where(mask, 0), mask

    def read(self, index: Tensor, mask: Tensor) -> Tensor:
        """Return the vectors that are planned, (b, L, d), zeros where none counts."""
        return self.states[index] * mask[..., None]

    def take(self, positions: Tensor) -> Remembered:
        """Return rows at positions (b,), padded to the longest."""
        index, mask = self.plan(positions)
        states = self.read(index.to(self.states.device), mask.to(self.states.device))
        return Remembered(states, mask, self.stages[positions], self.targets[positions])

    def put(
        self,
        slots: dict[int, int],
        rows: Sequence[Tensor],
        stage: int,
        targets: Tensor,
    ) -> None:
        """Write rows into slots, in the place of what is there.

        Parameters
        ----------
        slots : dict of int to int
            Slot and row; new slots follow those that are taken, without gaps.
        rows : sequence of Tensor of shape (l, d)
        stage : int
            Where they come from.
        targets : Tensor of shape (n, W)
        """
        kept = dict(enumerate(self.states.split(self.lengths.tolist())))
        places = list(range(max([len(self) - 1, *slots]) + 1))
        device = self.states.device
        states = [rows[slots[i]].to(device) if i in slots else kept[i] for i in places]
        stages = [stage if i in slots else int(self.stages[i]) for i in places]
        wide = max(targets.shape[1], self.targets.shape[1] if len(self) else 0)
        merged = torch.zeros(len(places), wide, dtype=torch.int64)
        merged[: len(self), : self.targets.shape[1]] = self.targets[:, :wide]
        for slot, row in slots.items():
            merged[slot] = 0
            merged[slot, : targets.shape[1]] = targets[row]
        # Made anew: what earlier calls fitted may be shared.
        self.states = torch.cat(states) if states else self.states
        self.lengths = torch.tensor([len(row) for row in states])
        self.stages = torch.tensor(stages, dtype=torch.int64)
        self.targets = merged


def reservoir_slots(seen: int, n_new: int, capacity: int) -> dict[int, int]:
    """Say which of so many new rows enter a reservoir, slot to row.

    The i-th row of all takes slot i while there is room, and then a slot drawn from i,
    if there is one of that number. Draws from torch's generator.

    Examples
    --------
    >>> reservoir_slots(seen=0, n_new=2, capacity=3)
    {0: 0, 1: 1}
    >>> len(reservoir_slots(seen=10, n_new=100, capacity=3)) <= 3
    True
    """
    counts = torch.arange(seen + 1, seen + n_new + 1, dtype=torch.float64)
    drawn = (torch.rand(n_new, dtype=torch.float64) * counts).long().tolist()
    slots = {}
    for row, slot in enumerate(drawn):
        first = seen + row
        slot = first if first < capacity else slot
        if slot < capacity:
            slots[slot] = row
    return slots
