"""Spectra of Gram matrices beside those of frozen weights, as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ._axes import COLOURS, need_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..methods.mora import MoRAClassifier

NEEDED = ["layer", "modality", "matrix", "index", "share"]
MODALITIES = ("text", "image")


class SpectrumDisplay:
    """Lines of the first eigenvalues of MoRA's Gram matrices: the paper's figure 4.

    A panel for each pair of adapted layers. Solid lines are Gram matrices, dashed ones
    the frozen weights, whose mean over the adapted projections is drawn: values of a
    few directions stand high where these hold most.

    Parameters
    ----------
    spectra : DataFrame
        What :meth:`MoRAClassifier.spectra` returned.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        The panels.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    MoRAClassifier.spectra : Computes the numbers.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from robustmm import MoRAClassifier, SpectrumDisplay
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(24, n_classes=2, random_state=0)
    >>> clf = MoRAClassifier("robustmm/tiny-clip", max_epochs=1, random_state=0)
    >>> display = SpectrumDisplay.from_estimator(clf.fit(X, y))
    >>> len(display.axes_)
    2
    """

    def __init__(self, spectra: pd.DataFrame):
        self.spectra = spectra

    @classmethod
    def from_estimator(cls, estimator: MoRAClassifier) -> SpectrumDisplay:
        """Compute the spectra of a fitted estimator and draw them.

        Parameters
        ----------
        estimator : MoRAClassifier
            Fitted, with ``use_shared=True``.
        """
        need_matplotlib()
        if not hasattr(estimator, "spectra"):
            raise TypeError(
                "estimator must have spectra, as MoRAClassifier has, got "
                f"{type(estimator).__name__}."
            )
        return cls.from_frame(estimator.spectra())

    @classmethod
    def from_frame(
        cls, spectra: pd.DataFrame, *, axes: list[Axes] | None = None
    ) -> SpectrumDisplay:
        """Draw what :meth:`MoRAClassifier.spectra` returned.

        Parameters
        ----------
        spectra : DataFrame
        axes : list of matplotlib Axes, optional
            A panel for each pair of layers; a new figure if None.
        """
        absent = [name for name in NEEDED if name not in spectra.columns]
        if absent or spectra.empty:
            raise ValueError(
                f"spectra must have rows and the columns {NEEDED}, got {len(spectra)} "
                f"rows and the columns {list(spectra.columns)}."
            )
        return cls(spectra).plot(axes)

    def plot(self, axes: list[Axes] | None = None) -> SpectrumDisplay:
        """Draw the lines.

        Parameters
        ----------
        axes : list of matplotlib Axes, optional
            A panel for each pair of layers; a new figure if None.

        Returns
        -------
        self
        """
        of = {m: self.spectra[self.spectra["modality"] == m] for m in MODALITIES}
        # The encoders may be of different depth: their layers are paired in order.
        layers = {m: sorted(frame["layer"].unique()) for m, frame in of.items()}
        pairs = list(zip(*layers.values(), strict=True))
        if axes is not None and len(axes) != len(pairs):
            raise ValueError(f"axes must be {len(pairs)} panels, got {len(axes)}.")
        self.axes_ = _panels(len(pairs)) if axes is None else list(axes)
        self.figure_ = self.axes_[0].figure
        for ax, pair in zip(self.axes_, pairs, strict=True):
            for colour, modality, layer in zip(COLOURS, MODALITIES, pair, strict=False):
                frame = of[modality]
                _draw(ax, frame[frame["layer"] == layer], modality, colour)
            ax.set_title("layer " + " / ".join(str(n) for n in dict.fromkeys(pair)))
            ax.set_xlabel("index")
            ax.set_xticks(sorted(self.spectra["index"].unique()))
        self.axes_[0].set_ylabel("share of the sum")
        self.axes_[0].set_ylim(bottom=0)
        self.axes_[-1].legend(fontsize=8)
        return self


def _panels(n: int) -> list[Axes]:
    need_matplotlib()
    import matplotlib.pyplot as plt

    size = 1 + 2.6 * n, 2.8
    options = {"layout": "constrained", "sharey": True, "squeeze": False}
    return list(plt.subplots(1, n, figsize=size, **options)[1][0])


def _draw(ax: Axes, frame: pd.DataFrame, modality: str, colour: str) -> None:
    is_gram = frame["matrix"] == "gram"
    parts = {("Gram", "-"): frame[is_gram], ("frozen", "--"): frame[~is_gram]}
    for (name, dash), part in parts.items():
        line = part.groupby("index")["share"].mean()
        label = f"{modality}, {name}"
        ax.plot(line.index, line, dash, marker=".", color=colour, label=label)
