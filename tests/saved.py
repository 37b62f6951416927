"""Saved models that tests open, change and compare."""

import json

import numpy as np
from contract import ToyClassifier, frame_with_holes

import robustmm

X, Y = frame_with_holes()


def open_toy(folder, **options):
    return robustmm.load(folder, classes=[ToyClassifier], **options)


def edit(folder, change):
    """Change the JSON of a saved model."""
    file = folder / "robustmm.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def same(one, other):
    np.testing.assert_allclose(
        one.decision_function(X), other.decision_function(X), rtol=0, atol=1e-6
    )
