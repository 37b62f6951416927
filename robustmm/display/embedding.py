"""Features in two dimensions, as points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from sklearn.base import BaseEstimator

from ..evaluation import embedding_coordinates
from ._axes import colours, need_matplotlib, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = {
    "complete": "o",
    "text_missing": "^",
    "image_missing": "s",
    "audio_missing": "D",
    "video_missing": "v",
}
# Of rows that miss several of three or more modalities.
_MORE_MARKERS = "PX*<>"
OTHERS = "#BBBBBB"


class EmbeddingDisplay:
    """Points of rows in feature space, coloured by class and marked by what is missing.

    Where triangles and squares lie among the circles of their colour, rows with a
    missing modality look to the classifier like complete ones.

    Parameters
    ----------
    points : DataFrame
        Columns ``first``, ``second``, ``pattern`` and, for colours, ``label``.
    max_classes : int
        Only so many of the classes, the most frequent ones, get colours of their own;
        the others are grey.
    label : str
        What the axes are, without their numbers.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where the points were drawn.
    figure_ : matplotlib Figure
        The figure of ``ax_``.

    See Also
    --------
    embedding_coordinates : Computes the points.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import pandas as pd
    >>> from robustmm import EmbeddingDisplay
    >>> points = pd.DataFrame(
    ...     {
    ...         "first": [0.0, 1.0],
    ...         "second": [1.0, 0.0],
    ...         "pattern": ["complete", "image_missing"],
    ...         "label": ["cat", "dog"],
    ...     }
    ... )
    >>> display = EmbeddingDisplay.from_frame(points)
    >>> [text.get_text() for text in display.ax_.get_legend().get_texts()]
    ['cat', 'dog', 'complete', 'image missing']
    """

    def __init__(
        self, points: pd.DataFrame, *, max_classes: int = 8, label: str = "direction"
    ):
        self.points = points
        self.max_classes = max_classes
        self.label = label

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: pd.DataFrame,
        y=None,
        *,
        method: str = "pca",
        max_classes: int = 8,
        ax: Axes | None = None,
        **options,
    ) -> EmbeddingDisplay:
        """Compute the features of a fitted estimator on rows, and draw them.

        Parameters
        ----------
        estimator : classifier or transformer
            Fitted, with ``transform``.
        X : DataFrame of shape (n, ...)
            Rows.
        y : array-like of shape (n,), optional
            Labels to colour by.
        method : {"pca", "tsne"}
            How the features are brought into two dimensions.
        max_classes : int
            Number of classes with colours of their own.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        **options
            For :func:`embedding_coordinates`, such as ``random_state``.
        """
        # First: what is to be drawn may take minutes.
        need_matplotlib()
        points = embedding_coordinates(estimator, X, y, method=method, **options)
        label = {"pca": "principal direction", "tsne": "t-SNE"}[method]
        return cls.from_frame(points, max_classes=max_classes, label=label, ax=ax)

    @classmethod
    def from_frame(
        cls,
        points: pd.DataFrame,
        *,
        max_classes: int = 8,
        label: str = "direction",
        ax: Axes | None = None,
    ) -> EmbeddingDisplay:
        """Draw what :func:`embedding_coordinates` returned.

        Parameters
        ----------
        points : DataFrame
            Columns ``first``, ``second``, ``pattern`` and, for colours, ``label``.
        max_classes : int
            Number of classes with colours of their own.
        label : str
            What the axes are, without their numbers.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        absent = {"first", "second", "pattern"} - set(points.columns)
        if absent or points.empty:
            raise ValueError(
                "points must have rows and the columns 'first', 'second' and "
                f"'pattern', got {len(points)} rows and the columns "
                f"{list(points.columns)}."
            )
        return cls(points, max_classes=max_classes, label=label).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> EmbeddingDisplay:
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.

        Returns
        -------
        self
        """
        self.ax_ = plain_axes(6.4, 4.4) if ax is None else ax
        self.figure_ = self.ax_.figure
        shades = self._shades()
        # Without labels all are of one class, whose empty name the legend leaves out.
        labels = self.points.get("label", pd.Series("", index=self.points.index))
        colour = labels.map(lambda label: shades.get(label, OTHERS)).to_numpy()
        for pattern, marker in self._markers().items():
            at = (self.points["pattern"] == pattern).to_numpy()
            self.ax_.scatter(
                self.points["first"][at],
                self.points["second"][at],
                c=colour[at],
                marker=marker,
                s=26,
                alpha=0.85,
                linewidths=0.4,
                edgecolors="white",
            )
        self._add_legend(shades, len(shades) < labels.nunique())
        self.ax_.set(xlabel=f"{self.label} 1", ylabel=f"{self.label} 2")
        # Numbers on these axes mean nothing: t-SNE has no unit.
        self.ax_.set(xticks=[], yticks=[])
        self.ax_.spines[["top", "right"]].set_visible(False)
        return self

    def _markers(self) -> dict[str, str]:
        """Return the marker of each pattern that there is, in a fixed order."""
        found = set(self.points["pattern"])
        others = sorted(found - set(MARKERS))
        markers = {name: MARKERS[name] for name in MARKERS if name in found}
        shapes = {n: _MORE_MARKERS[i % 5] for i, n in enumerate(others)}
        return markers | shapes

    def _shades(self) -> dict:
        """Return the colour of each class that has one, in order of the labels."""
        if "label" not in self.points:
            return {"": colours(1)[0]}
        frequent = self.points["label"].value_counts().index[: self.max_classes]
        # By label and not by frequency, so that a class has the same colour in the
        # picture of another table; as texts, as labels may be of several types.
        names = sorted(frequent, key=str)
        return dict(zip(names, colours(len(names)), strict=True))

    def _add_legend(self, shades: dict, others: bool) -> None:
        from matplotlib.lines import Line2D

        def handle(name, marker, colour):
            dot = {"marker": marker, "color": colour, "linestyle": "none"}
            return Line2D([], [], label=str(name), markersize=6, **dot)

        handles = [
            handle(name, "o", colour) for name, colour in shades.items() if name != ""
        ]
        if others:
            handles.append(handle("others", "o", OTHERS))
        handles += [
            handle(pattern.replace("_", " "), marker, "#444444")
            for pattern, marker in self._markers().items()
        ]
        self.ax_.legend(
            handles=handles,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            fontsize=9,
        )
