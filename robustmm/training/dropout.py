"""Modality dropout: training rows that lose one of their cells for a step."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from torch import Tensor, nn

from ..adapters import draw_hidden
from ..checks import check_number
from ..data import Collate
from .shares import Share


@dataclass(frozen=True)
class ModalityDropout:
    """Hide cells of complete rows in each batch of a training.

    A module that says ``reads_hidden`` gets the batch as it is, with one more entry,
    ``hidden`` (B, 2) bool, and hides these cells itself. All others get a batch in
    which the cells are missing, as if they were so in the table.

    Parameters
    ----------
    probability : float
        That a complete row loses its image or its text.
    per : {"row", "batch"}
        Whether each row draws, or one draw counts for all complete rows of a batch.
    collate : Collate
        Knows what a batch holds for a missing cell.
    """

    probability: float
    per: str
    collate: Collate

    def __call__(
        self, batch: dict, module: nn.Module, share: Share | None = None
    ) -> dict:
        """Return the batch for one step of the module; draws from torch's generator.

        Where several processes ``share`` a step, all draw the same for all of its rows.
        """
        # On the host, where it is planned which encoder runs on which rows.
        present = batch["present"].cpu()
        if share is None:
            hidden = draw_hidden(present, self.probability, self.per)
        else:
            whole = present.new_ones(len(share.rows), present.shape[1])
            drawn = draw_hidden(whole, self.probability, self.per)
            # A row of another process, where there is none of its own, is the first.
            drawn = drawn[share.place] if share.part else drawn[:1]
            hidden = drawn & present.all(dim=1, keepdim=True)
        return self.hide(batch, hidden, module)

    def hide(self, batch: dict, hidden: Tensor, module: nn.Module) -> dict:
        """Return the batch for a module from which cells (B, 2) bool are hidden."""
        if getattr(module, "reads_hidden", False):
            return {**batch, "hidden": hidden}
        return self.collate.hide(batch, hidden)


def check_probability(name: str, value) -> None:
    """Raise unless a value is in [0, 1], or ``"auto"``."""
    if isinstance(value, str) and value == "auto":
        return
    if isinstance(value, str):
        raise ValueError(f'{name} must be a number in [0, 1] or "auto", got {value!r}.')
    check_number(name, value, Real, 0, 1)


def automatic_probability(present) -> float:
    """Return the probability that leaves a third of the rows complete, 0 if fewer are.

    Two thirds where all rows are complete, as in the papers; it falls without a jump as
    more and more rows of the table are incomplete.

    Parameters
    ----------
    present : ndarray of shape (n, 2), bool
        Whether the training rows have an image and a text.

    Examples
    --------
    >>> import numpy as np
    >>> present = np.ones((6, 2), dtype=bool)
    >>> round(automatic_probability(present), 3)
    0.667
    >>> present[:2, 0] = False
    >>> round(automatic_probability(present), 3)
    0.5
    >>> present[2:4, 1] = False
    >>> automatic_probability(present)
    0.0
    """
    complete = present.all(axis=1).mean()
    return 0.0 if complete <= 1 / 3 else float(1 - 1 / (3 * complete))
