"""New axes and colours that all pictures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..data.frame import KNOWN_MODALITIES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

# Okabe and Ito's colours, which also differ for the colour-blind; the yellow, hard to
# see on white, comes last.
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#000000",
    "#F0E442",
)
DASHES = ("-", "--", ":", "-.")
# What is missing, in words for a legend.
SCENARIO_NAMES = {
    **{name: f"{name} missing" for name in KNOWN_MODALITIES},
    "both": "either missing",
    "each": "one missing",
    "complete": "complete",
}


def need_matplotlib() -> None:
    """Raise ImportError, with the remedy, unless pictures can be drawn."""
    # Here and not above: matplotlib is optional, and slow to import.
    try:
        import matplotlib.pyplot  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'A display needs matplotlib: pip install "robustmm[plot]".'
        ) from error


def cell_axes(shape: tuple[int, int]) -> Axes:
    """Return axes of a new figure in which (lines, columns) of cells are readable."""
    need_matplotlib()
    import matplotlib.pyplot as plt

    size = 2.5 + 0.22 * shape[1], 1.5 + 0.17 * shape[0]
    return plt.subplots(figsize=size, layout="constrained")[1]


def plain_axes(width: float, height: float, projection: str | None = None) -> Axes:
    """Return axes of a new figure of a size in inches."""
    need_matplotlib()
    import matplotlib.pyplot as plt

    return plt.subplots(
        figsize=(width, height),
        layout="constrained",
        subplot_kw={"projection": projection},
    )[1]


def colours(n: int) -> Sequence:
    """Return ``n`` colours that differ as much as so many can."""
    import matplotlib

    if n <= len(COLOURS):
        return COLOURS[:n]
    # Neighbours of a colour wheel look alike; a list holds out longer.
    if n <= 20:
        return matplotlib.colormaps["tab20"].colors[:n]
    wheel = matplotlib.colormaps["turbo"]
    return [wheel(i / (n - 1)) for i in range(n)]


def text_colour(image: AxesImage, value: float) -> str:
    """Return black or white, whichever can be read on the colour of a value."""
    # Brightness as the eye sees it: green counts most.
    red, green, blue, _ = image.cmap(image.norm(value))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def label_of(frame: pd.DataFrame, label: str | None, metric: str = "score") -> str:
    """Return what an axis is called: as asked, or as the numbers call themselves.

    Examples
    --------
    >>> import pandas as pd
    >>> curve = pd.DataFrame({"score": [0.5], "f1": [0.4]})
    >>> curve.attrs["score"] = "accuracy"
    >>> label_of(curve, None), label_of(curve, None, "f1"), label_of(curve, "share")
    ('accuracy', 'f1', 'share')
    """
    if label is not None:
        return label
    # Evaluations of one metric call the column "score", and say which it is there.
    return frame.attrs.get("score", metric) if metric == "score" else metric


def write_numbers(image: AxesImage, values: np.ndarray, label: str) -> None:
    """Write the values, but NaN, into the cells of a heat map; add its colour bar."""
    ax = image.axes
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            style = {"ha": "center", "va": "center", "color": text_colour(image, value)}
            ax.text(j, i, f"{value:.2f}", **style)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.figure.colorbar(image, ax=ax, label=label)
