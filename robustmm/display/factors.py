"""Which factors a task selects, and how alike the two queries of a row are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ._axes import COLOURS, colours, need_matplotlib, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..base import BaseMultimodalClassifier


class FactorUsageDisplay:
    """Bars of how often each factor of a task's two pools is selected [1]_.

    Bars of about one height say that a pool is used as a whole; a few high ones, that
    most of it is idle.

    Parameters
    ----------
    values : DataFrame of shape (pool_size, 2)
        Shares of the rows in [0, 1], a column for each modality's pool.
    task : int or None
        Whose pools they are; None for the mean of all tasks.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where the bars were drawn.
    figure_ : matplotlib Figure
        The figure of ``ax_``.
    bars_ : dict of str to matplotlib BarContainer
        The bars of each modality.

    See Also
    --------
    DeLoClassifier.factor_usage : Computes the numbers.

    References
    ----------
    .. [1] Liu, Li, Tang and Razzak, "DeLo: Dual Decomposed Low-Rank Experts
       Collaboration for Continual Missing Modality Learning", arXiv:2603.01632, 2026,
       figure 5.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import pandas as pd
    >>> from robustmm import FactorUsageDisplay
    >>> sides = pd.MultiIndex.from_product(
    ...     [["image", "text"], ["a", "b"]], names=["modality", "side"]
    ... )
    >>> factors = pd.MultiIndex.from_product([[0], [0, 1]], names=["task", "factor"])
    >>> usage = pd.DataFrame([[0.2, 0.4, 1, 1], [0.8, 0.6, 0, 0]], factors, sides)
    >>> FactorUsageDisplay.from_frame(usage).values["image"].round(2).tolist()
    [0.3, 0.7]
    """

    def __init__(self, values: pd.DataFrame, *, task: int | None = None):
        self.values = values
        self.task = task

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseMultimodalClassifier,
        X: pd.DataFrame,
        *,
        task: int | None = None,
        ax: Axes | None = None,
    ) -> FactorUsageDisplay:
        """Compute the usage of a fitted estimator on rows, and draw it.

        Parameters
        ----------
        estimator : DeLoClassifier
            Fitted.
        X : DataFrame of shape (n, ...)
            Rows with the columns seen in ``fit``.
        task : int, optional
            Whose pools; the mean over the tasks that have rows if None.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        # First: what is to be drawn may take minutes.
        need_matplotlib()
        if not hasattr(estimator, "factor_usage"):
            raise TypeError(
                "estimator must have factors, as DeLoClassifier has, got "
                f"{type(estimator).__name__}."
            )
        return cls.from_frame(estimator.factor_usage(X), task=task, ax=ax)

    @classmethod
    def from_frame(
        cls, usage: pd.DataFrame, *, task: int | None = None, ax: Axes | None = None
    ) -> FactorUsageDisplay:
        """Draw what ``factor_usage`` returned.

        Parameters
        ----------
        usage : DataFrame of shape (n_tasks * pool_size, 4)
            The index is (task, factor), the columns (modality, side).
        task : int, optional
            Whose pools; the mean over the tasks that have rows if None.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        if usage.index.nlevels != 2 or usage.columns.nlevels != 2 or usage.empty:
            raise ValueError(
                "usage must have rows, an index (task, factor) and columns (modality, "
                f"side), got the shape {usage.shape} and {usage.index.nlevels} and "
                f"{usage.columns.nlevels} levels."
            )
        tasks = usage.index.get_level_values(0).unique().tolist()
        if task is not None and task not in tasks:
            raise ValueError(f"task must be one of {tasks}, got {task!r}.")
        # Both sides of a factor are chosen; which one matters to nobody who counts.
        values = usage.T.groupby(level=0, sort=False).mean().T
        if task is None:
            values = values.groupby(level=1).mean()
        else:
            values = values.xs(task, level=0)
        return cls(values, task=task).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> FactorUsageDisplay:
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.

        Returns
        -------
        self
        """
        size = len(self.values)
        self.ax_ = plain_axes(2 + 0.3 * size, 3) if ax is None else ax
        self.figure_ = self.ax_.figure
        place, self.bars_ = np.arange(size), {}
        for i, name in enumerate(self.values.columns):
            self.bars_[name] = self.ax_.bar(
                place + 0.4 * i - 0.2,
                self.values[name],
                width=0.4,
                color=COLOURS[i],
                label=f"{name} pool",
            )
        self.ax_.set_xticks(place, self.values.index)
        whose = "all tasks" if self.task is None else f"task {self.task}"
        self.ax_.set(xlabel=f"factor of {whose}", ylabel="share of selections")
        self.ax_.legend()
        return self


class QueryAlignmentDisplay:
    """Distributions of the cosine between the image and the text query of a row [1]_.

    Near 1, a query may stand in for the other, as it has to where a modality is
    missing.

    Parameters
    ----------
    cosines : mapping of str to ndarray of shape (n,)
        Cosines of complete rows, by name of the group they are of.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where the histograms were drawn.
    figure_ : matplotlib Figure
        The figure of ``ax_``.

    See Also
    --------
    DeLoClassifier.query_vectors : Computes the queries.

    References
    ----------
    .. [1] Liu, Li, Tang and Razzak, "DeLo: Dual Decomposed Low-Rank Experts
       Collaboration for Continual Missing Modality Learning", arXiv:2603.01632, 2026,
       figure 4.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from robustmm import QueryAlignmentDisplay
    >>> queries = np.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> display = QueryAlignmentDisplay.from_vectors(queries, ["task 0", "task 1"])
    >>> {name: values.tolist() for name, values in display.cosines.items()}
    {'task 0': [1.0], 'task 1': [0.0]}
    """

    def __init__(self, cosines: Mapping[str, np.ndarray]):
        self.cosines = cosines

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseMultimodalClassifier,
        X: pd.DataFrame,
        groups: ArrayLike | None = None,
        *,
        ax: Axes | None = None,
    ) -> QueryAlignmentDisplay:
        """Compute the queries of complete rows with a fitted estimator, and draw them.

        Parameters
        ----------
        estimator : DeLoClassifier
            Fitted.
        X : DataFrame of shape (n, ...)
            Rows with the columns seen in ``fit``.
        groups : array-like of shape (n,), optional
            What to tell apart, such as the task of each row.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        # First: what is to be drawn may take minutes.
        need_matplotlib()
        if not hasattr(estimator, "query_vectors"):
            raise TypeError(
                "estimator must have query vectors, as DeLoClassifier has, got "
                f"{type(estimator).__name__}."
            )
        return cls.from_vectors(estimator.query_vectors(X), groups, ax=ax)

    @classmethod
    def from_vectors(
        cls, vectors: ArrayLike, groups: ArrayLike | None = None, ax: Axes | None = None
    ) -> QueryAlignmentDisplay:
        """Draw the cosines of pairs of queries.

        Parameters
        ----------
        vectors : array-like of shape (n, 2, d)
            The image's and the text's query of each row; rows with a NaN, as where a
            modality is missing, do not count.
        groups : array-like of shape (n,), optional
            What to tell apart, such as the task of each row.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        vectors = np.asarray(vectors, dtype=float)
        if vectors.ndim != 3 or vectors.shape[1] != 2:
            raise ValueError(
                "vectors must have the shape (n, 2, d), a query of the image and one "
                f"of the text, got {vectors.shape}."
            )
        names = np.full(len(vectors), "complete rows")
        names = names if groups is None else np.asarray(groups)
        if len(names) != len(vectors):
            raise ValueError(
                f"groups must have {len(vectors)} entries, got {len(names)}."
            )
        there = np.isfinite(vectors).all(axis=(1, 2))
        if not there.any():
            raise ValueError("vectors must have a row with both queries, got none.")
        vectors, names = vectors[there], names[there]
        lengths = np.linalg.norm(vectors, axis=2).prod(axis=1)
        cosines = (vectors[:, 0] * vectors[:, 1]).sum(axis=1)
        cosines = cosines / np.maximum(lengths, np.finfo(float).tiny)
        parts = {str(name): cosines[names == name] for name in np.unique(names)}
        return cls(parts).plot(ax=ax)

    def plot(self, ax: Axes | None = None, bins: int = 40) -> QueryAlignmentDisplay:
        """Draw the histograms, one over the other.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        bins : int
            Bins of each.

        Returns
        -------
        self
        """
        self.ax_ = plain_axes(5, 3) if ax is None else ax
        self.figure_ = self.ax_.figure
        every = np.concatenate([*self.cosines.values()])
        # One grid for all, or bars could not be compared.
        edges = np.histogram_bin_edges(every, bins)
        shades = colours(len(self.cosines))
        for (name, values), colour in zip(self.cosines.items(), shades, strict=True):
            style = {"histtype": "step", "linewidth": 1.5, "density": True}
            self.ax_.hist(values, edges, color=colour, label=name, **style)
        self.ax_.set(xlabel="cosine of image and text query", ylabel="density")
        self.ax_.legend()
        return self
