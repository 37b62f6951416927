"""What a row's class token and proxy token attend to, on its own picture and text."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unicodedata import east_asian_width

import numpy as np
import pandas as pd

from ..annotations import TableLike
from ..data import ImageTransform
from ..evaluation._columns import columns_of, common_value
from ._axes import need_matplotlib, text_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    from ..base import BaseMultimodalClassifier

NEEDED = ("row", "modality", "token", "y", "x", "word", "attention")
TOKENS = {"class": "class token", "proxy": "proxy token"}
PLACES = {"image": "patches", "text": "words"}
# In inches: a new figure, a line of words, and a modality that is missing.
_WIDTH, _LINE, _ABSENT = 9.0, 0.24, 0.4
_SIZE = 9  # of letters, in points
_LETTER = 0.602  # their width, where all are equally wide, as a part of that


class AttentionMapDisplay:
    """Maps of what the class token and the proxy token of a row attend to.

    Above, the picture as the encoder reads it, then, for each token, the same in grey
    under its map: the stronger the colour, the more it attends there. Below, the words
    of the text for each token. Both tokens share a scale, which begins at 0. A title
    says how much of the token's attention falls on what is shown; the rest falls on
    special tokens and on the proxy.

    Parameters
    ----------
    maps : DataFrame
        Of one row, as ``attention_maps`` returns it.
    picture : ndarray of uint8, shape (H, W, 3), or None
        What lies under the maps of the image.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Where the maps were drawn.
    axes_ : dict
        The axes by (modality, token), such as ``("image", "proxy")``; the picture alone
        is in ``("image", None)``. Of a missing modality, None says that it is missing.

    See Also
    --------
    CMPTClassifier.attention_maps : Computes the maps.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import pandas as pd
    >>> from robustmm import AttentionMapDisplay
    >>> maps = pd.DataFrame(
    ...     {
    ...         "row": 0,
    ...         "modality": "text",
    ...         "token": ["class"] * 2 + ["proxy"] * 2,
    ...         "y": None,
    ...         "x": None,
    ...         "word": ["red", "kite"] * 2,
    ...         "attention": [0.3, 0.4, 0.1, 0.8],
    ...     }
    ... )
    >>> display = AttentionMapDisplay(maps).plot()
    >>> display.axes_["text", "proxy"].get_title(loc="left")
    'proxy token: 90% on the words, at most 80% each'
    """

    def __init__(self, maps: pd.DataFrame, picture: np.ndarray | None = None):
        self.maps = maps
        self.picture = picture

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseMultimodalClassifier,
        row: TableLike,
        *,
        layer: int = -1,
        figure: Figure | None = None,
    ) -> AttentionMapDisplay:
        """Compute the maps of a row, and draw them on its picture and text.

        Parameters
        ----------
        estimator : CMPTClassifier
            Fitted.
        row : DataFrame of shape (1, ...), Series or dict
            One row with the columns seen in ``fit``, such as ``X.iloc[[3]]``.
        layer : int
            Of each encoder; negative numbers count from the last, -1.
        figure : matplotlib Figure, optional
            Where to draw; a new one if None.

        Raises
        ------
        TypeError
            If the estimator has no ``attention_maps``.
        ValueError
            If there is not one row, or it has neither an image nor a text.
        """
        # First: what is to be drawn may take minutes.
        need_matplotlib()
        if not hasattr(estimator, "attention_maps"):
            raise TypeError(
                "estimator must have class and proxy tokens, as CMPTClassifier has, "
                f"got {type(estimator).__name__}."
            )
        rows = columns_of([estimator]).rows(row)
        if len(rows) != 1:
            raise ValueError(
                f"row must be one row, such as X.iloc[[0]], got {len(rows)} rows."
            )
        maps, picture = estimator.attention_maps(row, layer), None
        # Asked of the maps: an image that cannot be read may count as missing.
        if (maps["modality"] == "image").any():
            config = estimator.net_.module_.backbone.image_config
            transform = ImageTransform.from_config(config, estimator.max_pixels)
            root = common_value([estimator], "image_root")
            picture = transform(rows.images[0], root)
        return cls(maps, picture).plot(figure=figure)

    def plot(
        self, figure: Figure | None = None, cmap: str = "Oranges"
    ) -> AttentionMapDisplay:
        """Draw the maps.

        Parameters
        ----------
        figure : matplotlib Figure, optional
            Where to draw; a new one, large enough for all words, if None.
        cmap : str
            Name of a colour map, which should grow darker.

        Returns
        -------
        self
        """
        need_matplotlib()
        import matplotlib.pyplot as plt

        self._check()
        width = _WIDTH if figure is None else figure.bbox.width / figure.dpi
        letters = max(20, int(72 * 0.96 * width / (_LETTER * _SIZE)))
        lines = self._lines(letters)
        # A heading of one line and a half above the words of each token.
        counts = [1.5 + len(part) for part in lines.values()]
        sizes = [
            0.33 * width if self._has("image") else _ABSENT,
            _LINE * sum(counts) if counts else _ABSENT,
        ]
        if figure is None:
            figure = plt.figure(figsize=(width, sum(sizes)), layout="constrained")
        self.figure_, self.axes_ = figure, {}
        above, below = figure.subfigures(2, 1, height_ratios=sizes)
        self._draw_image(above, cmap)
        self._draw_text(below, lines, counts, cmap)
        for token in lines:
            self.axes_["text", token].set_xlim(0, letters)
        return self

    def _check(self) -> None:
        absent = [name for name in NEEDED if name not in self.maps.columns]
        if absent or self.maps["row"].nunique(dropna=False) != 1:
            raise ValueError(
                f"maps must be of one row, with the columns {list(NEEDED)}, got "
                f"{len(self.maps)} lines with the columns {list(self.maps.columns)}."
            )

    def _has(self, modality: str) -> bool:
        return bool((self.maps["modality"] == modality).any())

    def _by_token(self, modality: str) -> dict[str, pd.DataFrame]:
        maps = self.maps[self.maps["modality"] == modality]
        return dict(list(maps.groupby("token", sort=False)))

    def _colours(self, modality: str, cmap: str) -> ScalarMappable:
        """The colours of both tokens, so that they can be compared."""
        from matplotlib.cm import ScalarMappable

        most = self.maps.loc[self.maps["modality"] == modality, "attention"].max()
        colours = ScalarMappable(cmap=cmap)
        colours.set_clim(0, most)
        return colours

    def _draw_image(self, figure, cmap: str) -> None:
        if not self._has("image"):
            self.axes_["image", None] = _say(figure, "The image is missing.")
            return
        parts, colours = self._by_token("image"), self._colours("image", cmap)
        axes = figure.subplots(1, 1 + len(parts))
        for ax in axes:
            ax.set_axis_off()
        if self.picture is not None:
            axes[0].imshow(self.picture)
        axes[0].set_title("picture", fontsize=_SIZE)
        self.axes_["image", None] = axes[0]
        for ax, (token, part) in zip(axes[1:], parts.items(), strict=True):
            grid = part.pivot(index="y", columns="x", values="attention")
            _draw_map(ax, grid.to_numpy(dtype=float), self.picture, colours)
            ax.set_title(_title("image", token, part), fontsize=_SIZE)
            self.axes_["image", token] = ax
        figure.colorbar(colours, ax=axes, label="attention", shrink=0.85)

    def _lines(self, letters: int) -> dict[str, list[list[tuple[str, float]]]]:
        """The words of each token and their attention, in lines of so many letters."""
        return {
            token: _wrapped(zip(part["word"], part["attention"], strict=True), letters)
            for token, part in self._by_token("text").items()
        }

    def _draw_text(self, figure, lines: dict, counts: list, cmap: str) -> None:
        if not lines:
            self.axes_["text", None] = _say(figure, "The text is missing.")
            return
        parts, colours = self._by_token("text"), self._colours("text", cmap)
        ratios = {"height_ratios": counts}
        axes = figure.subplots(len(lines), 1, squeeze=False, gridspec_kw=ratios)
        for ax, (token, words) in zip(axes[:, 0], lines.items(), strict=True):
            _draw_words(ax, words, colours)
            title = _title("text", token, parts[token])
            ax.set_title(title, fontsize=_SIZE, loc="left")
            self.axes_["text", token] = ax


def _title(modality: str, token: str, part: pd.DataFrame) -> str:
    name, shares = TOKENS.get(token, token), part["attention"]
    title = f"{name}: {shares.sum():.0%} on the {PLACES[modality]}"
    # Patches have a colour bar, for which words have no room.
    return title if modality == "image" else f"{title}, at most {shares.max():.0%} each"


def _say(figure, what: str) -> Axes:
    ax = figure.subplots()
    ax.set_axis_off()
    ax.text(0, 0.5, what, fontsize=_SIZE, style="italic", va="center")
    return ax


def _draw_map(
    ax: Axes, grid: np.ndarray, picture: np.ndarray | None, colours: ScalarMappable
) -> None:
    """Paint a map over a picture in grey, the denser the higher."""
    height, width = grid.shape if picture is None else picture.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    if picture is not None:
        grey = picture @ [0.299, 0.587, 0.114]  # as bright as the eye sees it
        # Pale, as what is dark would be taken for a part of the map.
        ax.imshow(128 + grey / 2, cmap="gray", vmin=0, vmax=255)
    options = {"cmap": colours.cmap, "norm": colours.norm, "extent": extent}
    alpha = 1.0 if picture is None else 0.15 + 0.7 * colours.norm(grid)
    ax.imshow(grid, alpha=alpha, interpolation="nearest", **options)


def _wrapped(words, letters: int) -> list[list[tuple[str, float]]]:
    """Lines of words that are not longer than so many letters."""
    lines: list[list] = [[]]
    used = 0
    for word, value in words:
        word = word if _length(word) < letters else word[: letters // 2 - 1] + "\u2026"
        if used + _length(word) + 1 > letters:
            lines.append([])
            used = 0
        lines[-1].append((word, float(value)))
        used += _length(word) + 1
    return lines


def _length(word: str) -> int:
    """Letters that a word is long; those of Chinese, Japanese and Korean count two."""
    return len(word) + sum(east_asian_width(letter) in "WF" for letter in word)


def _draw_words(
    ax: Axes, lines: list[list[tuple[str, float]]], colours: ScalarMappable
) -> None:
    from matplotlib.patches import Rectangle

    ax.set_ylim(len(lines), 0)
    ax.set_axis_off()
    for y, line in enumerate(lines):
        x = 0
        for word, value in line:
            length = _length(word)
            box = Rectangle((x, y + 0.04), length + 1, 0.92, fc=colours.to_rgba(value))
            ax.add_patch(box)
            ax.text(
                x + (length + 1) / 2,
                y + 0.5,
                word,
                # A dollar sign is no formula.
                parse_math=False,
                color=text_colour(colours, value),
                family="monospace",
                fontsize=_SIZE,
                ha="center",
                va="center",
            )
            x += length + 1
