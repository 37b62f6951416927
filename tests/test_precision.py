"""What bfloat16 may cost: digits of the features, but no order among the rows."""

import numpy as np
import pytest
from contract import frame_with_holes, public_classifiers, small

CLASSES = [cls for cls in public_classifiers() if "precision" in cls().get_params()]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_scores_are_tied(cls):
    X, y = frame_with_holes(60, n_classes=3)
    scores = small(cls, precision="bfloat16").fit(X, y).decision_function(X)
    # As many as with float32: no two of these rows are alike.
    assert [len(np.unique(column)) for column in scores.T] == [len(X)] * 3
