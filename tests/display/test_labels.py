"""Every picture of scores says which score it shows."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from evaluation_cases import HALVES, Reader, labelled_cells
from sklearn.dummy import DummyClassifier
from sklearn.naive_bayes import MultinomialNB

from robustmm import (
    AvailabilityRadarDisplay,
    ContinualMatrixDisplay,
    CrossScenarioDisplay,
    MissingRateCurveDisplay,
    missing_rate_curve,
)

DISPLAYS = {
    MissingRateCurveDisplay: lambda display: display.ax_.get_ylabel(),
    CrossScenarioDisplay: lambda display: display.im_.colorbar.ax.get_ylabel(),
    AvailabilityRadarDisplay: lambda display: display.ax_.get_title(),
}


class Growing(MultinomialNB):
    """Knows all classes beforehand."""

    def partial_fit(self, X, y):
        return super().partial_fit(X, y, classes=[0, 1, 2, 3])


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.mark.parametrize("kind", DISPLAYS)
@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({}, "accuracy"),
        ({"scoring": "f1_macro"}, "f1 macro"),
        ({"scoring": "f1_macro", "label": "F1"}, "F1"),
    ],
)
def test_the_axis_names_the_metric(kind, options, label):
    X, y = labelled_cells()
    display = kind.from_estimator(Reader(), X, y, cv=HALVES, **options)
    assert DISPLAYS[kind](display) == label


@pytest.mark.parametrize(("scoring", "label"), [(None, "accuracy"), ("f1_macro",) * 2])
def test_the_colour_bar_of_tasks(scoring, label):
    X, y = np.eye(4), np.arange(4)
    tasks = [(X[:2], y[:2], X[:2], y[:2]), (X[2:], y[2:], X[2:], y[2:])]
    display = ContinualMatrixDisplay.from_estimator(Growing(), tasks, scoring=scoring)
    assert display.im_.colorbar.ax.get_ylabel() == label.replace("_", " ")


def test_a_frame_remembers_its_metric():
    X, y = labelled_cells()
    curve = missing_rate_curve(DummyClassifier(), X, y, [0.0, 0.5], cv=HALVES)
    assert MissingRateCurveDisplay.from_frame(curve).ax_.get_ylabel() == "accuracy"
    several = missing_rate_curve(
        DummyClassifier(), X, y, [0.0, 0.5], cv=HALVES, scoring=["accuracy", "f1_macro"]
    )
    display = MissingRateCurveDisplay.from_frame(several, metric="f1_macro")
    assert display.ax_.get_ylabel() == "f1_macro"
