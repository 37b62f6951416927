"""Which experts serve which rows, as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..checks import check_choice
from ._axes import cell_axes, need_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..base import BaseMultimodalClassifier

USAGE_VALUES = {
    "frequency": "share of tokens that chose the expert",
    "weight": "mean gate of the expert",
}


class ExpertUsageDisplay:
    """Heat map of which experts serve the rows of each missing pattern.

    Side by side a block per pattern, one below the other a block per adapted linear; in
    a block, layers from top to bottom and experts from left to right. Blocks of one
    line that differ show routing that depends on what is missing. A place is white if
    its layer has no such expert.

    Parameters
    ----------
    values : ndarray of shape (n_linears, n_layers, n_patterns, n_experts)
        What to draw, between 0 and 1; NaN where a layer has fewer experts.
    linears : sequence of str
        Names of the adapted linears.
    layers : sequence of int
        Numbers of the layers.
    patterns : sequence of str
        Missing patterns.
    experts : sequence of int
        Numbers of the experts.
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
    MAILClassifier.expert_usage : Computes the numbers.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import pandas as pd
    >>> from robustmm import ExpertUsageDisplay
    >>> usage = pd.DataFrame(
    ...     {
    ...         "pattern": ["complete"] * 2 + ["image_missing"] * 2,
    ...         "layer": 0,
    ...         "linear": "up",
    ...         "expert": [0, 1, 0, 1],
    ...         "frequency": [0.9, 0.1, 0.3, 0.7],
    ...         "weight": [0.8, 0.2, 0.4, 0.6],
    ...     }
    ... )
    >>> display = ExpertUsageDisplay.from_frame(usage)
    >>> display.values.shape
    (1, 1, 2, 2)
    """

    COLUMNS = "expert"
    _top = 1.0

    def __init__(
        self,
        values: np.ndarray,
        *,
        linears: Sequence[str],
        layers: Sequence[int],
        patterns: Sequence[str],
        experts: Sequence[int],
        label: str = USAGE_VALUES["frequency"],
    ):
        self.values = values
        self.linears = linears
        self.layers = layers
        self.patterns = patterns
        self.experts = experts
        self.label = label

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseMultimodalClassifier,
        X: pd.DataFrame,
        *,
        value: str = "frequency",
        ax: Axes | None = None,
    ) -> ExpertUsageDisplay:
        """Compute the usage of a fitted estimator on rows, and draw it.

        Parameters
        ----------
        estimator : MAILClassifier
            Fitted.
        X : DataFrame of shape (n, ...)
            Rows with the columns seen in ``fit``.
        value : {"frequency", "weight"}
            Column of the usage to draw.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        # First: what is to be drawn may take minutes.
        need_matplotlib()
        if not hasattr(estimator, "expert_usage"):
            raise TypeError(
                "estimator must have experts, as MAILClassifier has, got "
                f"{type(estimator).__name__}."
            )
        return cls.from_frame(estimator.expert_usage(X), value=value, ax=ax)

    @classmethod
    def from_frame(
        cls, usage: pd.DataFrame, *, value: str = "frequency", ax: Axes | None = None
    ) -> ExpertUsageDisplay:
        """Draw what ``expert_usage`` returned, or some rows of it.

        Parameters
        ----------
        usage : DataFrame
            Columns ``pattern``, ``layer``, ``linear``, ``expert`` and ``value``'s.
        value : {"frequency", "weight"}
            Column to draw.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        check_choice("value", value, USAGE_VALUES)
        needed = ["linear", "layer", "pattern", "expert"]
        absent = [name for name in (*needed, value) if name not in usage.columns]
        if absent or usage.empty:
            raise ValueError(
                f"usage must have rows and the columns {[*needed, value]}, got "
                f"{len(usage)} rows and the columns {list(usage.columns)}."
            )
        # Numbers in order, names in the order in which the table has them.
        names = [list(usage[name].unique()) for name in needed]
        names[1].sort()
        names[3].sort()
        grid = pd.MultiIndex.from_product(names)
        # Layers may have other numbers of experts: a cell that is not there is NaN,
        # white.
        values = usage.set_index(needed)[value].reindex(grid)
        display = cls(
            values.to_numpy().reshape([len(part) for part in names]),
            linears=names[0],
            layers=names[1],
            patterns=names[2],
            experts=names[3],
            label=USAGE_VALUES[value],
        )
        return display.plot(ax=ax)

    def plot(self, ax: Axes | None = None, cmap: str = "YlGnBu") -> ExpertUsageDisplay:
        """Draw the map.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure, large enough for all labels, if None.
        cmap : str
            Name of a colour map.

        Returns
        -------
        self
        """
        gaps = [(0, 0), (0, 1), (0, 0), (0, 1)]  # a line of white after each block
        cells = np.pad(self.values, gaps, constant_values=np.nan)
        n_linears, n_layers, n_patterns, n_experts = cells.shape
        shape = n_linears * n_layers, n_patterns * n_experts
        # Nothing follows the last block that it need be kept apart from.
        cells = cells.reshape(shape)[:-1, :-1]
        self.ax_ = cell_axes(cells.shape) if ax is None else ax
        self.figure_ = self.ax_.figure
        self.im_ = self.ax_.imshow(
            cells, cmap=cmap, vmin=0, vmax=self._top, aspect="auto"
        )
        self._label_columns(n_experts)
        self._label_lines(n_layers)
        self.ax_.spines[:].set_visible(False)
        self.ax_.tick_params(length=0, labelsize=7)
        self.figure_.colorbar(self.im_, ax=self.ax_, label=self.label)
        return self

    def _label_columns(self, width: int) -> None:
        starts = [i * width for i in range(len(self.patterns))]
        ticks = [start + n for start in starts for n in range(width - 1)]
        self.ax_.set_xticks(ticks, [*self.experts] * len(starts))
        self.ax_.set_xlabel(self.COLUMNS)
        above = self.ax_.get_xaxis_transform()
        for start, pattern in zip(starts, self.patterns, strict=True):
            self.ax_.text(
                start + (width - 2) / 2,
                1.01,
                pattern.replace("_", " "),
                transform=above,
                ha="center",
                va="bottom",
                fontsize=9,
            )

    def _label_lines(self, height: int) -> None:
        starts = [i * height for i in range(len(self.linears))]
        ticks = [start + n for start in starts for n in range(height - 1)]
        self.ax_.set_yticks(ticks, [*self.layers] * len(starts))
        self.ax_.set_ylabel("layer", labelpad=22)
        for start, linear in zip(starts, self.linears, strict=True):
            self.ax_.annotate(
                linear,
                (0, start + (height - 2) / 2),
                xycoords=self.ax_.get_yaxis_transform(),
                xytext=(-18, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                rotation=90,
                fontsize=9,
            )
