"""Scores by how many rows have an image and how many a text, as a radar plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from ..data.frame import KNOWN_MODALITIES, MODALITIES
from ..evaluation import availability_grid
from ..evaluation._draws import plural
from ._axes import colours, label_of, need_matplotlib, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class AvailabilityRadarDisplay:
    """Radar plot of the scores by the availability of images and texts.

    A spoke per pair of shares, a polygon per method: the larger, the better, and the
    rounder, the less it matters what is missing.

    Parameters
    ----------
    means : DataFrame of shape (n_pairs, n_methods)
        Mean scores; the index has a level for each modality, ``image`` and ``text``:
        the shares of rows that have one.
    label : str
        What the numbers are.

    Attributes
    ----------
    ax_ : matplotlib PolarAxes
        Where the plot was drawn.
    figure_ : matplotlib Figure
        The figure of ``ax_``.
    lines_ : list of matplotlib Line2D
        The polygons, in the order of the columns.

    See Also
    --------
    availability_grid : Computes the numbers.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import pandas as pd
    >>> from robustmm import AvailabilityRadarDisplay
    >>> grid = pd.DataFrame(
    ...     {
    ...         "image": [1.0, 1.0, 0.3],
    ...         "text": [1.0, 0.3, 1.0],
    ...         "fold": 0,
    ...         "score": [0.9, 0.6, 0.8],
    ...     }
    ... )
    >>> display = AvailabilityRadarDisplay.from_frame(grid, name="CMPT")
    >>> display.means["CMPT"].tolist()
    [0.9, 0.6, 0.8]
    """

    def __init__(self, means: pd.DataFrame, *, label: str = "score"):
        self.means = means
        self.label = label

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: pd.DataFrame,
        y,
        *,
        name: str | None = None,
        label: str | None = None,
        ax: Axes | None = None,
        **options,
    ) -> AvailabilityRadarDisplay:
        """Compute the grid of an estimator by cross-validation, and draw it.

        Parameters
        ----------
        estimator : classifier
            Not changed.
        X : DataFrame of shape (n, ...)
            Rows.
        y : array-like of shape (n,) or (n, L)
            Labels.
        name : str, optional
            Name of the polygon; that of the class if None.
        label : str, optional
            What the numbers are; the name of the metric if None.
        ax : matplotlib PolarAxes, optional
            Where to draw; a new figure if None.
        **options
            For :func:`availability_grid`, such as ``availability`` and ``cv``; one
            metric only.
        """
        # First: what is to be drawn may take minutes.
        need_matplotlib()
        grid = availability_grid(estimator, X, y, **options)
        name = name or type(estimator).__name__
        return cls.from_frame(grid, name=name, label=label, ax=ax)

    @classmethod
    def from_frame(
        cls,
        grid: pd.DataFrame,
        *,
        metric: str = "score",
        name: str = "score",
        label: str | None = None,
        ax: Axes | None = None,
    ) -> AvailabilityRadarDisplay:
        """Draw what :func:`availability_grid` returned.

        Parameters
        ----------
        grid : DataFrame
            Columns ``image``, ``text`` (or other modalities), the metric's and, to show
            several such tables in one picture, ``method``; at least three pairs.
        metric : str
            Column to draw.
        name : str
            Name of the polygon, if there is no column ``method``.
        label : str, optional
            What the numbers are; the name of the metric if None.
        ax : matplotlib PolarAxes, optional
            Where to draw; a new figure if None.
        """
        names = [name for name in grid.columns if name in KNOWN_MODALITIES]
        names = names if len(names) > 1 else list(MODALITIES)
        absent = {*names, metric} - set(grid.columns)
        pairs = [] if absent else grid[names].drop_duplicates()
        if len(pairs) < 3:
            raise ValueError(
                f"grid must have the columns 'image', 'text' and {metric!r} and at "
                f"least 3 pairs of shares, got the columns {list(grid.columns)} and "
                f"{len(pairs)} pairs."
            )
        if "method" not in grid.columns:
            grid = grid.assign(method=name)
        groups = grid.groupby([*names, "method"], sort=False)[metric]
        # unstack sorts; the spokes go round in the order of the grid.
        means = groups.mean().unstack("method")
        means = means.reindex(
            index=pd.MultiIndex.from_frame(pairs), columns=grid["method"].unique()
        )
        return cls(means, label=label_of(grid, label, metric)).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> AvailabilityRadarDisplay:
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib PolarAxes, optional
            Where to draw, made with ``projection="polar"``; a new figure if None.

        Returns
        -------
        self
        """
        if ax is not None and ax.name != "polar":
            raise ValueError(
                f'ax must be made with projection="polar", got {ax.name!r} axes.'
            )
        self.ax_ = plain_axes(5.8, 5.0, "polar") if ax is None else ax
        self.figure_ = self.ax_.figure
        angles = np.linspace(0, 2 * np.pi, len(self.means), endpoint=False)
        shades = colours(self.means.shape[1])
        self.lines_ = []
        for (name, scores), colour in zip(self.means.items(), shades, strict=True):
            # matplotlib closes no line by itself, on polar axes neither.
            closed = np.append(scores.to_numpy(), scores.iloc[0])
            turn = np.append(angles, angles[0])
            self.lines_ += self.ax_.plot(
                turn, closed, color=colour, marker="o", markersize=4, label=str(name)
            )
            if len(shades) <= 3:  # more would add up to grey
                self.ax_.fill(turn, closed, color=colour, alpha=0.08)
        self._label_spokes(angles)
        return self

    def _label_spokes(self, angles: np.ndarray) -> None:
        self.ax_.set_theta_offset(np.pi / 2)
        self.ax_.set_theta_direction(-1)
        kinds = [plural(name) for name in self.means.index.names]
        names = [
            "\n".join(
                f"{share:.0%} {kind}" for share, kind in zip(shares, kinds, strict=True)
            )
            for shares in self.means.index
        ]
        self.ax_.set_xticks(angles, names, fontsize=8)
        for angle, tick in zip(angles, self.ax_.get_xticklabels(), strict=True):
            # Spokes on the right are labelled to the right of their end, and so on.
            side = np.sin(angle)
            tick.set_horizontalalignment(
                "center" if abs(side) < 0.1 else "left" if side > 0 else "right"
            )
        # A centre that is not zero would exaggerate what methods differ by.
        self.ax_.set_ylim(bottom=0)
        # Between two spokes, where no polygon has a corner.
        self.ax_.set_rlabel_position(np.degrees(angles[1] / 2))
        self.ax_.tick_params(axis="y", labelsize=7)
        self.ax_.grid(alpha=0.4)
        self.ax_.set_title(self.label, fontsize=10, pad=14)
        if len(self.lines_) > 1:
            self.ax_.legend(
                frameon=False,
                fontsize=9,
                ncols=min(3, len(self.lines_)),
                loc="upper center",
                bbox_to_anchor=(0.5, -0.12),
            )
