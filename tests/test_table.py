"""A classifier of the table that has no network: what it gets from the base."""

import numpy as np
import pandas as pd
import pytest

from robustmm.table import TableClassifier


class LengthClassifier(TableClassifier):
    """Tells long texts from short ones, and opens no image."""

    def fit(self, X, y, sample_weight=None):
        with self._unchanged_on_failure():
            self._check_parameters()
            rows, targets = self._check_X(X, reset=True), self._encode(y)
            weights = self._check_weights(rows, targets, sample_weight)
            self._take_labels(targets, weights)
        return self

    def _log_odds(self, X):
        lengths = [len(text or "") for text in self._check_X(X, reset=False).texts]
        return np.stack([-np.array(lengths, float), np.array(lengths) - 8.0], axis=1)


TABLE = pd.DataFrame({"image": None, "text": ["a hill", None, "a hill by the sea"]})


def test_labels_probabilities_and_scores_come_from_the_log_odds():
    clf = LengthClassifier().fit(TABLE, ["short", "short", "long"])
    assert clf.classes_.tolist() == ["long", "short"]
    assert clf.class_prior_.tolist() == pytest.approx([1 / 3, 2 / 3])
    np.testing.assert_allclose(clf.predict_proba(TABLE).sum(axis=1), 1)
    assert clf.decision_function(TABLE).tolist() == [4.0, -8.0, 26.0]


def test_what_cannot_be_used_is_refused_before_anything_is_set():
    for X, y, message in (
        (TABLE[["image"]], [0, 1, 0], "text"),
        (TABLE.iloc[:0], [], "label at least|minimum of 1"),
        (TABLE, [0, 0, 0], "only one class"),
    ):
        clf = LengthClassifier()
        with pytest.raises(ValueError, match=message):
            clf.fit(X, y)
        assert not hasattr(clf, "classes_")


def test_parameters_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"batch_size.*0"):
        LengthClassifier(batch_size=0).fit(TABLE, [0, 1, 0])
