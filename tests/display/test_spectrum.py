"""Spectra as lines: what is drawn where."""

import numpy as np
import pandas as pd
import pytest
from contract import frame_with_holes, small

from robustmm import MAILClassifier, MoRAClassifier, SpectrumDisplay

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def fitted():
    return small(MoRAClassifier, n_layers=2).fit(*frame_with_holes(12))


def test_lines_are_the_numbers(fitted):
    spectra = fitted.spectra()
    display = SpectrumDisplay.from_estimator(fitted)
    assert [ax.get_title() for ax in display.axes_] == ["layer 2", "layer 3"]
    lines = {line.get_label(): line for line in display.axes_[1].lines}
    names = ("text, Gram", "text, frozen", "image, Gram", "image, frozen")
    assert set(lines) == set(names)
    of = spectra[(spectra["layer"] == 3) & (spectra["modality"] == "image")]
    gram = of[of["matrix"] == "gram"]["share"]
    np.testing.assert_allclose(lines["image, Gram"].get_ydata(), gram)
    frozen = of[of["matrix"] != "gram"].groupby("index")["share"].mean()
    np.testing.assert_allclose(lines["image, frozen"].get_ydata(), frozen)
    assert display.plot(list(display.axes_)).figure_ is display.figure_


def test_what_cannot_be_drawn_is_refused(fitted):
    with pytest.raises(TypeError, match="must have spectra"):
        SpectrumDisplay.from_estimator(MAILClassifier())
    with pytest.raises(ValueError, match="must have rows and the columns"):
        SpectrumDisplay.from_frame(pd.DataFrame({"layer": [1]}))
    display = SpectrumDisplay.from_frame(fitted.spectra())
    with pytest.raises(ValueError, match="axes must be 2 panels, got 1"):
        display.plot(display.axes_[:1])
