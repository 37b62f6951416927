"""What an automatic classifier tried: score against the cost of a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from ._axes import COLOURS, need_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENSEMBLE = "ensemble"
PANELS = {"score": "all rows", "complete": "complete rows"}
# Of rows that have nothing there is nothing to see.
_EMPTY = ("both_missing", "all_missing")
# A shape and a colour each, so that none is told by its colour alone.
_MARKERS = "osD^vPX"
_GREY = "#8C8C8C"


class LeaderboardDisplay:
    """Scores of the candidates against what a prediction costs, by missing pattern.

    A panel for all held-out rows and one for each missing pattern, with common axes.
    The ensemble is a star, with a line at its score; its members have a colour and a
    shape each, the other candidates are small and grey. What has no score, as it was
    dropped early or failed, is not shown.

    Parameters
    ----------
    leaderboard : DataFrame
        ``leaderboard_`` of an :class:`AutoMultimodalClassifier`.
    label : str
        What the score is.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        The panels.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    AutoMultimodalClassifier : Makes the leaderboard.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from robustmm import LeaderboardDisplay
    >>> leaderboard = pd.DataFrame(
    ...     {
    ...         "score": [0.7, 0.6, 0.2],
    ...         "complete": [0.8, 0.7, 0.2],
    ...         "weight": [1.0, 1.0, 0.0],
    ...         "predict_ms": [2.0, 2.0, 0.1],
    ...     },
    ...     index=["ensemble", "probe", "prior"],
    ... )
    >>> display = LeaderboardDisplay.from_frame(leaderboard)
    >>> [ax.get_title() for ax in display.axes_]
    ['all rows', 'complete rows']
    """

    def __init__(self, leaderboard: pd.DataFrame, *, label: str = "score"):
        self.leaderboard = leaderboard
        self.label = label

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        *,
        label: str = "score",
        axes: Sequence[Axes] | None = None,
    ) -> LeaderboardDisplay:
        """Draw the leaderboard of a fitted automatic classifier.

        Parameters
        ----------
        estimator : AutoMultimodalClassifier
            Fitted.
        label : str
            What the score is.
        axes : sequence of matplotlib Axes, optional
            Where to draw, one for each panel; a new figure if None.
        """
        need_matplotlib()
        if not hasattr(type(estimator), "leaderboard_"):
            raise TypeError(
                "estimator must be an AutoMultimodalClassifier, got "
                f"{type(estimator).__name__}."
            )
        return cls.from_frame(estimator.leaderboard_, label=label, axes=axes)

    @classmethod
    def from_frame(
        cls,
        leaderboard: pd.DataFrame,
        *,
        label: str = "score",
        axes: Sequence[Axes] | None = None,
    ) -> LeaderboardDisplay:
        """Draw a leaderboard.

        Parameters
        ----------
        leaderboard : DataFrame
            With the columns ``score``, ``weight`` and ``predict_ms``, those of the
            missing patterns if there are any, and the names as index.
        label : str
            What the score is.
        axes : sequence of matplotlib Axes, optional
            Where to draw, one for each panel; a new figure if None.
        """
        absent = {"score", "weight", "predict_ms"} - set(leaderboard.columns)
        if absent or not leaderboard.get("score", pd.Series()).notna().any():
            raise ValueError(
                "leaderboard must have the columns 'score', 'weight' and 'predict_ms' "
                f"and a score, got the columns {list(leaderboard.columns)}."
            )
        return cls(leaderboard, label=label).plot(axes=axes)

    def plot(self, axes: Sequence[Axes] | None = None) -> LeaderboardDisplay:
        """Draw the panels.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, optional
            Where to draw, one for each panel; a new figure if None.

        Returns
        -------
        self
        """
        table = self.leaderboard
        there = [p for p in _panel_columns(table) if table[p].notna().any()]
        self.axes_ = _panels(len(there)) if axes is None else np.ravel(axes)
        if len(self.axes_) < len(there):
            raise ValueError(
                f"axes must be {len(there)}, one for each panel, got {len(self.axes_)}."
            )
        self.figure_ = self.axes_[0].figure
        styles = self._styles()
        for ax, column in zip(self.axes_, there, strict=False):
            self._draw(ax, column, styles)
        self.axes_[0].set_ylabel(self.label)
        self._legend()
        return self

    def _styles(self) -> dict[str, dict]:
        """Return how each candidate is drawn, those that are seen best last."""
        table = self.leaderboard.dropna(subset=["score", "predict_ms"])
        weights = table["weight"].drop(ENSEMBLE, errors="ignore")
        members = weights[weights > 0].sort_values(ascending=False)
        styles = {
            name: {"c": "none", "edgecolors": _GREY, "marker": "o", "s": 22}
            for name in weights.index.difference(members.index, sort=False)
        }
        # The heaviest are told apart, the others are told from what was not chosen.
        for i, name in reversed(list(enumerate(members.index))):
            place = min(i, len(_MARKERS) - 1)
            colour, marker = COLOURS[place], _MARKERS[place]
            edge = {"edgecolors": "white", "linewidths": 0.6}
            styles[name] = {"c": colour, "marker": marker, "s": 62, **edge}
        if ENSEMBLE in self.leaderboard.index:
            star = {"marker": "*", "s": 260, "edgecolors": "white", "linewidths": 0.8}
            styles[ENSEMBLE] = {"c": "black", **star}
        return styles

    def _draw(self, ax: Axes, column: str, styles: dict[str, dict]) -> None:
        table = self.leaderboard
        # A logarithm needs a cost; what is cheaper than a microsecond is free.
        cost = table["predict_ms"].clip(lower=1e-3)
        if ENSEMBLE in table.index:
            ax.axhline(table.loc[ENSEMBLE, column], color="black", lw=0.7, ls=":")
        for level, (name, style) in enumerate(styles.items()):
            label = self._label(name)
            place = cost[name], table.loc[name, column]
            ax.scatter(*place, **style, label=label, zorder=3 + level, clip_on=False)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        title = PANELS.get(column, column.replace("_", " "))
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("ms per row", fontsize=9)
        ax.grid(alpha=0.25, which="major")
        ax.spines[["top", "right"]].set_visible(False)

    def _label(self, name: str) -> str:
        weight = self.leaderboard.loc[name, "weight"]
        if name == ENSEMBLE:
            return ENSEMBLE
        return f"{name} ({weight:.2f})" if weight > 0 else "not chosen"

    def _legend(self) -> None:
        handles, labels = self.axes_[0].get_legend_handles_labels()
        # Once each; the ensemble first, then its members by weight.
        named = dict(zip(reversed(labels), reversed(handles), strict=True))
        columns = 2 if max(map(len, named)) > 34 else 3
        self.figure_.legend(
            named.values(),
            [_shortened(label) for label in named],
            loc="outside lower center",
            ncols=min(columns, len(named)),
            frameon=False,
            fontsize=8.5,
            title="ensemble weight in brackets",
            title_fontsize=8.5,
        )


def _panel_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns with a panel: all rows, then each missing pattern."""
    patterns = [name for name in table if str(name).endswith("_missing")]
    patterns = [name for name in patterns if name not in _EMPTY]
    return [name for name in (*PANELS, *patterns) if name in table]


def _panels(count: int) -> np.ndarray:
    """Return axes of a new figure, side by side, with common scales."""
    import matplotlib.pyplot as plt

    axes = plt.subplots(
        1,
        count,
        figsize=(1.0 + 2.5 * count, 4.2),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )[1]
    return axes.ravel()


def _shortened(label: str, most: int = 58) -> str:
    return label if len(label) <= most else f"{label[: most // 2]} ... {label[-24:]}"
