"""Scores by what training and what test rows miss, as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from ..evaluation import cross_scenario_matrix
from ._axes import SCENARIO_NAMES, label_of, need_matplotlib, plain_axes, write_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class CrossScenarioDisplay:
    """Heat map of the scores by what is missing in training and in test.

    Rows are what the training rows missed, columns what the test rows miss; colours
    span the scores that are there. A method that transfers has rows of one colour.

    Parameters
    ----------
    values : ndarray of shape (n_trained, n_tested)
        The scores.
    trained, tested : sequence of str
        Scenarios of training and of test.
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
    cross_scenario_matrix : Computes the numbers.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import pandas as pd
    >>> from robustmm import CrossScenarioDisplay
    >>> names = ["text", "image"]
    >>> matrix = pd.DataFrame([[0.8, 0.3], [0.4, 0.7]], index=names, columns=names)
    >>> display = CrossScenarioDisplay.from_frame(matrix)
    >>> [text.get_text() for text in display.ax_.texts]
    ['0.80', '0.30', '0.40', '0.70']
    """

    def __init__(
        self,
        values: np.ndarray,
        *,
        trained: Sequence[str],
        tested: Sequence[str],
        label: str = "score",
    ):
        self.values = values
        self.trained = trained
        self.tested = tested
        self.label = label

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: pd.DataFrame,
        y,
        *,
        label: str | None = None,
        ax: Axes | None = None,
        **options,
    ) -> CrossScenarioDisplay:
        """Compute the matrix of an estimator by cross-validation, and draw it.

        Parameters
        ----------
        estimator : classifier
            Not changed.
        X : DataFrame of shape (n, ...)
            Rows.
        y : array-like of shape (n,) or (n, L)
            Labels.
        label : str, optional
            What the numbers are; the name of the metric if None.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        **options
            For :func:`cross_scenario_matrix`, such as ``rate`` and ``cv``.
        """
        # First: what is to be drawn may take minutes.
        need_matplotlib()
        matrix = cross_scenario_matrix(estimator, X, y, **options)
        return cls.from_frame(matrix, label=label, ax=ax)

    @classmethod
    def from_frame(
        cls, matrix: pd.DataFrame, *, label: str | None = None, ax: Axes | None = None
    ) -> CrossScenarioDisplay:
        """Draw what :func:`cross_scenario_matrix` returned.

        Parameters
        ----------
        matrix : DataFrame of shape (n_trained, n_tested)
            The scores.
        label : str, optional
            What the numbers are; the name of the metric if None.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        if matrix.ndim != 2 or matrix.empty:
            raise ValueError(
                "matrix must have a row per scenario of training and a column per "
                f"scenario of test, got the shape {matrix.shape}."
            )
        values = matrix.to_numpy(dtype=float)
        names = {"trained": list(matrix.index), "tested": list(matrix.columns)}
        return cls(values, label=label_of(matrix, label), **names).plot(ax=ax)

    def plot(
        self, ax: Axes | None = None, cmap: str = "YlGnBu"
    ) -> CrossScenarioDisplay:
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
        lines, columns = self.values.shape
        size = 2.6 + 1.0 * columns, 1.2 + 0.75 * lines
        self.ax_ = plain_axes(*size) if ax is None else ax
        self.figure_ = self.ax_.figure
        self.im_ = self.ax_.imshow(self.values, cmap=cmap, aspect="auto")
        # In two lines, or the names of neighbours would overlap.
        tested, trained = (
            [SCENARIO_NAMES.get(name, str(name)).replace(" ", "\n") for name in names]
            for names in (self.tested, self.trained)
        )
        self.ax_.set_xticks(range(columns), tested)
        self.ax_.set_yticks(range(lines), trained)
        self.ax_.set(xlabel="tested on", ylabel="trained on")
        write_numbers(self.im_, self.values, self.label)
        return self
