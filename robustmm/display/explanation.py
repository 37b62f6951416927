"""One row with its words and the regions of its picture, coloured by what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import BaseEstimator

from ..annotations import TableLike
from ..evaluation import Explanation, explain
from ._axes import COLOURS, need_matplotlib, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

# Inches of a figure of its own.
_WIDTH = 6.4
_PICTURE, _LINE, _NOTE, _BAR = 3.1, 0.24, 0.3, 0.95
# Letters of a word, and of an inch.
_MOST_LETTERS = 40
_LETTERS = 11.5
# Of the region that counts most: what it shows is still seen.
_OPAQUE = 0.75


class ExplanationDisplay:
    """The words and regions of one row, coloured by what they say about a class.

    What is blue speaks for the class and what is vermilion against it, the more of the
    colour the more; words and regions have one scale. The picture itself stands beside
    that of its regions, which is grey below their colours.

    Parameters
    ----------
    explanation : Explanation
        What :func:`explain` returns.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn. Picture, words and scale have axes of their own inside.
    figure_ : matplotlib Figure
        The figure of ``ax_``.

    See Also
    --------
    explain : Computes it.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from robustmm import ExplanationDisplay, LinearProbeClassifier
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=3, random_state=0)
    >>> probe = LinearProbeClassifier("robustmm/tiny-clip").fit(X, y)
    >>> display = ExplanationDisplay.from_estimator(probe, X[:1], class_="forest")
    >>> display.ax_.get_title(loc="left").splitlines()[0][:20]
    'forest: probability '
    """

    def __init__(self, explanation: Explanation):
        self.explanation = explanation

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        row: TableLike,
        *,
        ax: Axes | None = None,
        **options,
    ) -> ExplanationDisplay:
        """Explain the prediction for a row, and draw it.

        Parameters
        ----------
        estimator : classifier
            Fitted, with ``predict_proba``.
        row : DataFrame of one row, Series, dict, or what else a classifier takes
            The row.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        **options
            Passed on to :func:`explain`: ``class_``, ``grid``, ``measure``, and others.
        """
        need_matplotlib()
        return cls(explain(estimator, row, **options)).plot(ax=ax)

    @classmethod
    def from_explanation(
        cls, explanation: Explanation, *, ax: Axes | None = None
    ) -> ExplanationDisplay:
        """Draw what :func:`explain` returned.

        Parameters
        ----------
        explanation : Explanation
            What to draw.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if None.
        """
        if not isinstance(explanation, Explanation):
            raise TypeError(
                "explanation must be what explain returns, got "
                f"{type(explanation).__name__}."
            )
        return cls(explanation).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> ExplanationDisplay:
        """Draw the picture, the words below it, and what the colours mean.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw, of some 6 by 6 inches; a new figure if None, as high as the
            text is long.

        Returns
        -------
        self
        """
        width = _WIDTH if ax is None else ax.bbox.width / ax.figure.dpi
        lines = _lines(self.explanation, int(width * _LETTERS))
        words_height = len(lines) * _LINE if lines else _NOTE
        heights = np.array([self._picture_height(), words_height, _BAR])
        self.ax_ = plain_axes(_WIDTH, heights.sum() + 0.7) if ax is None else ax
        self.figure_ = self.ax_.figure
        self.ax_.set_axis_off()
        self.ax_.set_title(self._title(), loc="left", fontsize=11)
        picture, words, bar = _stacked(self.ax_, heights)
        limit, shades = self._limit(), _shades()
        self._draw_picture(picture, limit, shades)
        self._draw_words(words, lines, limit, shades)
        self._draw_scale(bar, limit, shades)
        return self

    def _title(self) -> str:
        found = self.explanation
        title = f"{_shown(found.label)}: probability {found.probability:.3f}"
        if found.pattern != "complete":
            return f"{title}\n{found.pattern.replace('_', ' ')}"
        parts = found.modalities["probability"].items()
        return f"{title}\n" + ", ".join(f"{p:.3f} without the {m}" for m, p in parts)

    def _picture_height(self) -> float:
        """Return inches: two pictures side by side, high ones made smaller."""
        image = self.explanation.image
        if image is None:
            return _NOTE
        return min(_PICTURE, _WIDTH / 2 * image.height / image.width + 0.1)

    def _limit(self) -> float:
        """Return the largest support of a word or a region, either way."""
        tables = self.explanation.words, self.explanation.regions
        values = np.concatenate([t["support"].to_numpy(dtype=float) for t in tables])
        return float(np.abs(values).max(initial=0)) or 1.0

    def _draw_picture(self, ax: Axes, limit: float, shades: Colormap) -> None:
        ax.set_axis_off()
        image = self.explanation.image
        if image is None:
            _note(ax, "image missing")
            return
        # A photograph of any size as large as it can be seen; its boxes stay in pixels
        # of the whole, so the axes do.
        small = image.copy()
        small.thumbnail((1024, 1024))
        edges = 0, image.width, image.height, 0
        left, right = ax.inset_axes([0, 0, 0.49, 1]), ax.inset_axes([0.51, 0, 0.49, 1])
        left.imshow(small, extent=edges)
        # In grey, as a blue sky would look like one that speaks for the class.
        right.imshow(small.convert("L"), extent=edges, cmap="gray", vmin=0, vmax=255)
        for axes in (left, right):
            axes.set_axis_off()
        self._cover(right, limit, shades)

    def _cover(self, ax: Axes, limit: float, shades: Colormap) -> None:
        """Lay the colour of each region over it, the more the denser."""
        from matplotlib.patches import Rectangle

        for part in self.explanation.regions.itertuples():
            share = part.support / limit
            end = shades(1.0 if share > 0 else 0.0)
            size = part.right - part.left, part.bottom - part.top
            # Without edges, which would be drawn twice between neighbours.
            box = Rectangle((part.left, part.top), *size, linewidth=0)
            box.set_facecolor((*end[:3], abs(share) * _OPAQUE))
            ax.add_patch(box)

    def _draw_words(self, ax: Axes, lines, limit: float, shades: Colormap) -> None:
        from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea, VPacker

        ax.set_axis_off()
        if not lines:
            _note(ax, "text missing")
            return

        def area(word: str, support: float) -> TextArea:
            colour = shades(support / limit / 2 + 0.5)
            dark = np.dot(colour[:3], (0.299, 0.587, 0.114)) < 0.5
            box = {"facecolor": colour, "edgecolor": "none", "pad": 1.5}
            style = {"color": "white" if dark else "black", "fontsize": 10}
            # A dollar is a dollar here, and begins no formula.
            return TextArea(word, textprops={**style, "bbox": box, "parse_math": False})

        rows = [
            HPacker(children=[area(*word) for word in line], pad=0, sep=6)
            for line in lines
        ]
        column = VPacker(children=rows, pad=0, sep=5, align="left")
        box = AnchoredOffsetbox("upper left", child=column, frameon=False, pad=0)
        ax.add_artist(box)

    def _draw_scale(self, ax: Axes, limit: float, shades: Colormap) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        ax.set_axis_off()
        place = ax.inset_axes([0.2, 0.5, 0.6, 0.15])
        scale = ScalarMappable(Normalize(-limit, limit), shades)
        bar = self.figure_.colorbar(scale, cax=place, orientation="horizontal")
        ends = f"{-limit:.2g}\nspeaks against", f"+{limit:.2g}\nspeaks for"
        bar.set_ticks([-limit, 0, limit], labels=[ends[0], "0", ends[1]], fontsize=9)
        bar.outline.set_visible(False)
        named = {"log_odds": "log-odds", "probability": "probability"}
        measure = named[self.explanation.measure]
        title = f"{measure} that a part adds to {_shown(self.explanation.label)}"
        place.set_title(title, fontsize=9)


def _shades() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    blue, vermilion = COLOURS[:2]
    ends = [vermilion, "white", blue]
    # An odd number, or zero would be a shade.
    return LinearSegmentedColormap.from_list("support", ends, N=257)


def _stacked(ax: Axes, heights: np.ndarray) -> list[Axes]:
    """Return axes inside others, one below the other in proportion to ``heights``."""
    shares = heights / heights.sum()
    bottoms = 1 - np.cumsum(shares)
    return [
        ax.inset_axes([0, bottom, 1, share * 0.96])
        for bottom, share in zip(bottoms, shares, strict=True)
    ]


def _note(ax: Axes, text: str) -> None:
    style = {"ha": "center", "va": "center", "style": "italic", "color": "#555555"}
    ax.text(0.5, 0.5, text, transform=ax.transAxes, **style)


def _lines(explanation: Explanation, letters: int) -> list[list[tuple[str, float]]]:
    """Return (word, support) in lines of so many letters."""
    lines, used = [], letters
    for word, support in explanation.words[["word", "support"]].itertuples(index=False):
        word = _shown(word)
        used += len(word) + 1
        if used > letters:
            lines.append([])
            used = len(word)
        lines[-1].append((word, support))
    return lines


def _shown(value) -> str:
    """A word or a label as it can be drawn: in one line, and not too long a one."""
    # A lone surrogate has no glyph, and could not be written into a file either.
    text = " ".join(str(value).encode("utf-8", "replace").decode().split())
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]} ..."
