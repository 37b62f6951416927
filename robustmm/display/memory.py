"""Which entries of its memories MemPrompt reads, as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._axes import need_matplotlib
from .experts import ExpertUsageDisplay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..methods.memprompt import MemPromptClassifier

LEVELS = ["pattern", "layer", "modality"]


class MemoryUsageDisplay(ExpertUsageDisplay):
    """Heat map of which entries of the memories the rows of each pattern read.

    Side by side a block per pattern, one below the other the memories of texts and of
    images; in a block, layers from top to bottom and entries from left to right. Blocks
    of one line that are alike show a memory that returns the same whatever is missing.

    Parameters
    ----------
    values : ndarray of shape (n_modalities, n_layers, n_patterns, n_entries)
        What to draw, at least 0.
    linears : sequence of str
        The modalities.
    layers : sequence of int
        Numbers of the layers.
    patterns : sequence of str
        Missing patterns.
    experts : sequence of int
        Numbers of the entries.
    label : str
        What the numbers are.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where the map was drawn.
    figure_ : matplotlib Figure
        The figure of ``ax_``.
    im_ : matplotlib AxesImage
        The map.

    See Also
    --------
    MemPromptClassifier.memory_usage : Computes the numbers.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from robustmm import MemoryUsageDisplay, MemPromptClassifier
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(24, n_classes=2, random_state=0)
    >>> small = {"prompt_length": 2, "generative_layers": 2, "max_epochs": 1}
    >>> clf = MemPromptClassifier("robustmm/tiny-vilt", random_state=0, **small)
    >>> display = MemoryUsageDisplay.from_estimator(clf.fit(X, y), X)
    >>> display.values.shape
    (2, 2, 1, 16)
    """

    COLUMNS = "entry"

    @classmethod
    def from_estimator(
        cls,
        estimator: MemPromptClassifier,
        X: pd.DataFrame,
        *,
        ax: Axes | None = None,
    ) -> MemoryUsageDisplay:
        """Compute the usage of a fitted estimator on rows, and draw it.

        Parameters
        ----------
        estimator : MemPromptClassifier
            Fitted.
        X : DataFrame of shape (n, ...)
            Rows with the columns seen in ``fit``.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        need_matplotlib()
        if not hasattr(estimator, "memory_usage"):
            raise TypeError(
                "estimator must have a memory, as MemPromptClassifier has, got "
                f"{type(estimator).__name__}."
            )
        return cls.from_frame(estimator.memory_usage(X), ax=ax)

    @classmethod
    def from_frame(
        cls, usage: pd.DataFrame, *, ax: Axes | None = None
    ) -> MemoryUsageDisplay:
        """Draw what ``memory_usage`` returned, or some rows of it.

        Parameters
        ----------
        usage : DataFrame
            Index levels ``pattern``, ``layer`` and ``modality``, a column per entry.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        if list(usage.index.names) != LEVELS or usage.empty:
            raise ValueError(
                f"usage must have rows, and an index of {LEVELS}, got {len(usage)} "
                f"rows and {list(usage.index.names)}."
            )
        names = {level: list(usage.index.unique(level)) for level in LEVELS}
        order = [names["modality"], sorted(names["layer"]), names["pattern"]]
        grid = pd.MultiIndex.from_product(order, names=["modality", "layer", "pattern"])
        values = usage.reorder_levels(grid.names).reindex(grid).to_numpy()
        shape = [len(part) for part in order]
        display = cls(
            values.reshape(*shape, -1),
            linears=order[0],
            layers=order[1],
            patterns=order[2],
            experts=list(usage.columns),
            label="mean weight of the entry",
        )
        return display.plot(ax=ax)

    @property
    def _top(self) -> float:
        return float(np.nanmax(self.values))
