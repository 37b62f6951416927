"""What bfloat16 may cost: digits of the features, but no order among the rows."""

import numpy as np
import pytest
import torch
from contract import frame_with_holes, public_classifiers, small

CLASSES = [cls for cls in public_classifiers() if "precision" in cls().get_params()]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_scores_are_tied(cls):
    X, y = frame_with_holes(60, n_classes=3)
    scores = small(cls, precision="bfloat16").fit(X, y).decision_function(X)
    # As many as with float32: no two of these rows are alike.
    assert [len(np.unique(column)) for column in scores.T] == [len(X)] * 3


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_fitted_model_predicts_about_the_same_on_a_cpu(cls):
    X, y = frame_with_holes(30, n_classes=3)
    clf = small(cls).fit(X, y)
    exact = clf.predict_proba(X)
    clf.net_.set_params(autocast=torch.bfloat16)
    apart = np.abs(clf.predict_proba(X) - exact).max()
    assert 0 < apart < 0.05
