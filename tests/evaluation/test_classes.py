"""Scores of each class by pattern, and what the features of rows lie near."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import f1_score, recall_score

from robustmm import class_scores_by_pattern, nearest_class_share

X = pd.DataFrame(
    {
        "image": ["a", "b", "c", "d", None, None],
        "text": ["p", "p", "q", None, "p", "q"],
    }
)
Y = np.array(["no", "yes", "yes", "yes", "no", "yes"])


class Reader(ClassifierMixin, BaseEstimator):
    """Says yes where the text is q, no where it is p, and maybe without one."""

    def fit(self, X, y):
        self.classes_ = np.array(["maybe", "no", "yes"])
        return self

    def predict(self, X):
        told = X["text"].map({"q": "yes", "p": "no"})
        return told.fillna("maybe").to_numpy()

    def transform(self, X):
        return X["text"].map({"q": 1.0, "p": 0.0}).fillna(0.4).to_numpy()[:, None]


READER = Reader().fit(X, Y)


def test_scores_are_scikit_learn_s_of_each_pattern():
    for metric, function in (("f1", f1_score), ("recall", recall_score)):
        scores = class_scores_by_pattern(READER, X, Y, metric=metric)
        assert list(scores.index) == ["maybe", "no", "yes"]
        assert scores["n_rows"].tolist() == [0, 2, 4]
        complete = function(
            Y[:3], READER.predict(X[:3]), labels=["no", "yes"], average=None
        )
        np.testing.assert_allclose(scores.loc[["no", "yes"], "complete"], complete)
        assert scores["image_missing"].tolist()[1:] == [1.0, 1.0]
        assert scores.loc["yes", "text_missing"] == 0.0
        assert np.isnan(scores.loc["no", "text_missing"])
        assert scores.loc["maybe", "complete":"image_missing"].isna().all()


def test_blanked_rows_are_the_complete_ones_each_time():
    scores = class_scores_by_pattern(READER, X, Y, metric="recall", rows="blanked")
    patterns = ["complete", "text_missing", "image_missing"]
    assert scores.loc["yes", patterns].tolist() == [0.5, 0.0, 0.5]
    assert scores.loc["no", "image_missing"] == 1.0
    with pytest.raises(ValueError, match='rows="blanked" needs rows with both'):
        class_scores_by_pattern(READER, X[3:], Y[3:], rows="blanked")


def test_several_labels():
    class Words(Reader):
        def predict(self, X):
            told = super().predict(X)
            return np.stack([told == "yes", told == "no"], axis=1).astype(int)

    Z = pd.DataFrame({"q": (X["text"] == "q").astype(int), "every": 1})
    scores = class_scores_by_pattern(Words().fit(X, Y), X, Z, metric="recall")
    assert list(scores.index) == ["q", "every"]
    assert scores["complete"].tolist() == [1.0, pytest.approx(2 / 3)]
    assert scores["n_rows"].tolist() == [2, 6]


def test_share_of_rows_near_their_own_class():
    # Means of the complete rows: no 0, yes (0 + 1) / 2.
    share = nearest_class_share(READER, X, Y)
    assert share["n_rows"].tolist() == [3, 3, 3]
    expected = {"complete": 2 / 3, "text_missing": 2 / 3, "image_missing": 2 / 3}
    assert share["share"].to_dict() == pytest.approx(expected)
    one_kind = nearest_class_share(READER, X[:3], ["no", "no", "yes"])
    assert one_kind["share"].to_dict() == pytest.approx(
        {"complete": 1.0, "text_missing": 2 / 3, "image_missing": 1.0}
    )


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="metric must be one of"):
        class_scores_by_pattern(READER, X, Y, metric="accuracy")
    with pytest.raises(TypeError, match="must have transform"):
        nearest_class_share(BaseEstimator(), X, Y)
    with pytest.raises(ValueError, match="needs rows with both an image and a text"):
        nearest_class_share(READER, X[3:], Y[3:])
