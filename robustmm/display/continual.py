"""What is left of earlier tasks, as a heat map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..evaluation import continual_matrix
from ._axes import cell_axes, label_of, need_matplotlib, write_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..base import BaseMultimodalClassifier


class ContinualMatrixDisplay:
    """Heat map of the scores on every task after every stage of continual learning.

    Rows are tasks, columns what was learned last; the cells before a task was learned
    are empty. Reading a row from the diagonal to the right shows forgetting.

    Parameters
    ----------
    values : ndarray of shape (n_tasks, n_tasks)
        The scores, NaN where a task had not been learned.
    names : sequence
        Names of the tasks.
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
    continual_matrix : Computes the numbers.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> import pandas as pd
    >>> from robustmm import ContinualMatrixDisplay
    >>> matrix = pd.DataFrame([[0.9, 0.6], [np.nan, 0.8]])
    >>> display = ContinualMatrixDisplay.from_frame(matrix)
    >>> [text.get_text() for text in display.ax_.texts]
    ['0.90', '0.60', '0.80']
    """

    def __init__(self, values: np.ndarray, *, names: Sequence, label: str = "score"):
        self.values = values
        self.names = names
        self.label = label

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseMultimodalClassifier,
        tasks: Iterable[tuple],
        *,
        scoring: str | Callable | None = None,
        names: Sequence | None = None,
        label: str | None = None,
        ax: Axes | None = None,
    ) -> ContinualMatrixDisplay:
        """Learn tasks one after another with a clone, and draw the scores.

        Parameters
        ----------
        estimator : DeLoClassifier, or another classifier with ``partial_fit``
            Not changed.
        tasks : iterable of (X_train, y_train, X_test, y_test)
            One tuple per task.
        scoring : str, callable or None
            As for :func:`continual_matrix`.
        names : sequence, optional
            Names of the tasks.
        label : str, optional
            What the numbers are; the name of the metric if None.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        # First: what is to be drawn may take minutes.
        need_matplotlib()
        matrix = continual_matrix(estimator, tasks, scoring=scoring, names=names)
        return cls.from_frame(matrix, label=label, ax=ax)

    @classmethod
    def from_frame(
        cls, matrix: pd.DataFrame, *, label: str | None = None, ax: Axes | None = None
    ) -> ContinualMatrixDisplay:
        """Draw what :func:`continual_matrix` returned.

        Parameters
        ----------
        matrix : DataFrame of shape (n_tasks, n_tasks)
            The scores.
        label : str, optional
            What the numbers are; the name of the metric if None.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.empty:
            raise ValueError(
                "matrix must be square, a row and a column per task, got the shape "
                f"{matrix.shape}."
            )
        values = matrix.to_numpy(dtype=float)
        label = label_of(matrix, label)
        return cls(values, names=list(matrix.index), label=label).plot(ax=ax)

    def plot(
        self, ax: Axes | None = None, cmap: str = "YlGnBu"
    ) -> ContinualMatrixDisplay:
        """Draw the map, with the number in every cell.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        cmap : str
            Name of a colour map.

        Returns
        -------
        self
        """
        size = len(self.names)
        # Cells with numbers in them are larger than those of a plain heat map.
        self.ax_ = cell_axes((3 * size, 3 * size)) if ax is None else ax
        self.figure_ = self.ax_.figure
        # The whole range of a score, so that two such pictures can be compared.
        self.im_ = self.ax_.imshow(self.values, cmap=cmap, vmin=0, vmax=1)
        self.ax_.set_xticks(range(size), self.names, rotation=30, ha="right")
        self.ax_.set_yticks(range(size), self.names)
        self.ax_.set(xlabel="after learning", ylabel="tested on")
        write_numbers(self.im_, self.values, self.label)
        return self
