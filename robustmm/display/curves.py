"""Scores while more and more rows miss a modality, as curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from sklearn.base import BaseEstimator

from ..evaluation import missing_rate_curve
from ._axes import (
    DASHES,
    SCENARIO_NAMES,
    colours,
    label_of,
    need_matplotlib,
    plain_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class MissingRateCurveDisplay:
    """Curves of the score over the share of rows that miss a modality.

    A line per scenario, per method, or per method and scenario: the colour says what
    the legend lists first, the dashes the second. The band is a standard deviation up
    and down over the folds, and absent if there is one fold.

    Parameters
    ----------
    means, deviations : DataFrame of shape (n_rates, n_lines)
        Mean scores and their standard deviations; the index is the rate, the columns
        have one or two levels, ``method`` and ``scenario``, of those that vary.
    label : str
        What the numbers are.
    title : str
        What all lines have in common; drawn if there are several.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where the curves were drawn.
    figure_ : matplotlib Figure
        The figure of ``ax_``.
    lines_ : list of matplotlib Line2D
        The curves, in the order of the columns.

    See Also
    --------
    missing_rate_curve : Computes the numbers.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import pandas as pd
    >>> from robustmm import MissingRateCurveDisplay
    >>> curve = pd.DataFrame(
    ...     {
    ...         "scenario": ["text"] * 2 + ["image"] * 2,
    ...         "rate": [0.0, 0.7] * 2,
    ...         "fold": 0,
    ...         "score": [0.9, 0.4, 0.9, 0.8],
    ...     }
    ... )
    >>> display = MissingRateCurveDisplay.from_frame(curve, label="accuracy")
    >>> [line.get_label() for line in display.lines_]
    ['text missing', 'image missing']
    """

    def __init__(
        self,
        means: pd.DataFrame,
        deviations: pd.DataFrame,
        *,
        label: str = "score",
        title: str = "",
    ):
        self.means = means
        self.deviations = deviations
        self.label = label
        self.title = title

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
    ) -> MissingRateCurveDisplay:
        """Compute the curves of an estimator by cross-validation, and draw them.

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
            For :func:`missing_rate_curve`, such as ``rates`` and ``scenario``; one
            metric only.
        """
        # First: what is to be drawn may take minutes.
        need_matplotlib()
        curve = missing_rate_curve(estimator, X, y, **options)
        return cls.from_frame(curve, label=label, ax=ax)

    @classmethod
    def from_frame(
        cls,
        curve: pd.DataFrame,
        *,
        metric: str = "score",
        label: str | None = None,
        ax: Axes | None = None,
    ) -> MissingRateCurveDisplay:
        """Draw what :func:`missing_rate_curve` returned.

        Parameters
        ----------
        curve : DataFrame
            Columns ``rate``, the metric's, ``scenario`` and, to show several such
            tables in one picture, ``method``.
        metric : str
            Column to draw.
        label : str, optional
            What the numbers are; the name of the metric if None.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        names = [name for name in ("method", "scenario") if name in curve.columns]
        absent = {"rate", metric} - set(curve.columns)
        if absent or not names or curve.empty:
            raise ValueError(
                "curve must have rows and the columns 'rate', 'method' or 'scenario', "
                f"and {metric!r}, got {len(curve)} rows and the columns "
                f"{list(curve.columns)}."
            )
        # What is the same for all curves goes into the title, not into each label.
        varied = [name for name in names if curve[name].nunique() > 1] or names[:1]
        fixed = [curve[name].iloc[0] for name in names if name not in varied]
        names, lines = varied, [curve[name] for name in varied]
        order = pd.MultiIndex.from_frame(curve[names].drop_duplicates())
        order = order if len(names) > 1 else order.get_level_values(0)
        groups = curve.groupby(["rate", *lines], sort=False)[metric]
        # unstack sorts the names; curves keep the order of the table.
        means, deviations = (
            part.unstack(names).reindex(columns=order).sort_index()
            for part in (groups.mean(), groups.std())
        )
        label = label_of(curve, label, metric)
        title = ", ".join(SCENARIO_NAMES.get(part, str(part)) for part in fixed)
        return cls(means, deviations, label=label, title=title).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> MissingRateCurveDisplay:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.

        Returns
        -------
        self
        """
        from matplotlib.ticker import PercentFormatter

        aside = len(self.means.columns) > 4  # more would cover the curves
        self.ax_ = plain_axes(7.5 if aside else 5.5, 3.8) if ax is None else ax
        self.figure_ = self.ax_.figure
        firsts = list(dict.fromkeys(self._first(name) for name in self.means.columns))
        shades = dict(zip(firsts, colours(len(firsts)), strict=True))
        self.lines_ = [self._draw(name, shades) for name in self.means.columns]
        self.ax_.xaxis.set_major_formatter(PercentFormatter(1.0))
        self.ax_.set(xlabel="test rows that miss a modality", ylabel=self.label)
        self.ax_.spines[["top", "right"]].set_visible(False)
        self.ax_.grid(alpha=0.25)
        if aside:
            where = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
            self.ax_.legend(frameon=False, fontsize=9, **where)
        elif len(self.lines_) > 1:
            self.ax_.legend(frameon=False, fontsize=9)
        single = len(self.lines_) == 1
        only = [str(self.lines_[0].get_label())] if single else []
        self.ax_.set_title(", ".join(filter(None, [*only, self.title])), fontsize=10)
        return self

    def _draw(self, name, shades: dict):
        """Draw one curve and its band."""
        # Methods may have been measured at other rates: no gap where one was not.
        mean, deviation = self.means[name].dropna(), self.deviations[name]
        parts = name if isinstance(name, tuple) else (name,)
        seconds = list(dict.fromkeys(self.means.columns.get_level_values(-1)))
        place = seconds.index(parts[-1]) if len(parts) > 1 else 0
        (line,) = self.ax_.plot(
            mean.index,
            mean,
            marker="o",
            markersize=4,
            color=shades[parts[0]],
            # Methods by colour and scenarios by dash: read without a legend of all
            # pairs.
            linestyle=DASHES[place % len(DASHES)],
            label=", ".join(SCENARIO_NAMES.get(part, str(part)) for part in parts),
        )
        spread = deviation.reindex(mean.index)
        # One fold has no deviation.
        if spread.notna().any():
            self.ax_.fill_between(
                mean.index,
                mean - spread,
                mean + spread,
                color=shades[parts[0]],
                alpha=0.12,
                linewidth=0,
            )
        return line

    def _first(self, name):
        return name[0] if isinstance(name, tuple) else name
