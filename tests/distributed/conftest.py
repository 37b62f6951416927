"""A fitted probe and rows with labels of their own, which all tests here share."""

import numpy as np
import pytest

from robustmm import LinearProbeClassifier
from robustmm.datasets import make_scenes

PROBE = "robustmm/tiny-clip"


@pytest.fixture(scope="package")
def scenes():
    return make_scenes(20, n_classes=3, random_state=0)


@pytest.fixture(scope="package")
def probe(scenes):
    return LinearProbeClassifier(PROBE, device="cpu").fit(*scenes)


@pytest.fixture(scope="package")
def binary(scenes):
    X, y = scenes
    return LinearProbeClassifier(PROBE, device="cpu").fit(X, (y == "city").astype(int))


@pytest.fixture(scope="package")
def multilabel(scenes):
    X, y = scenes
    Y = np.column_stack([y == "city", y == "beach"]).astype(int)
    return LinearProbeClassifier(PROBE, device="cpu").fit(X, Y)


@pytest.fixture
def table(scenes):
    """Texts only, as the rows of another machine: labels, holes and a key."""
    X = scenes[0].assign(image=None, key=np.arange(20))
    X.loc[[4, 17], "text"] = "  "
    return X.set_index(X.index.map("r{}".format))
