"""What memories return, as a heat map."""

import pandas as pd
import pytest
from contract import frame_with_holes, small

from robustmm import MAILClassifier, MemoryUsageDisplay, MemPromptClassifier

pytest.importorskip("matplotlib")


def test_cells_are_the_numbers():
    X, y = frame_with_holes(18)
    fitted = small(MemPromptClassifier).fit(X, y)
    usage = fitted.memory_usage(X)
    display = MemoryUsageDisplay.from_estimator(fitted, X)
    assert display.values.shape == (2, 2, 3, 4)
    for m, modality in enumerate(display.linears):
        for p, pattern in enumerate(display.patterns):
            expected = usage.loc[(pattern, 1, modality)].to_numpy()
            assert display.values[m, 1, p].tolist() == expected.tolist()
    assert display.im_.norm.vmax == display.values.max()
    assert display.ax_.get_xlabel() == "entry"
    assert display.plot(display.ax_).figure_ is display.figure_


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(TypeError, match="must have a memory"):
        MemoryUsageDisplay.from_estimator(MAILClassifier(), None)
    with pytest.raises(ValueError, match="usage must have rows, and an index of"):
        MemoryUsageDisplay.from_frame(pd.DataFrame({"entry": [1.0]}))
