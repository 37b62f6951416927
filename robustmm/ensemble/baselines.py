"""Candidates without an encoder: the class frequencies, and the words of the text.

What they learn is a few arrays, so that a saved model holds nothing else.
"""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from ..checks import check_number
from ..clips import ClipColumns
from ..data import Rows
from ..data.screening import rows_to_train
from ..data.targets import Targets, log_odds_of
from ..table import TableClassifier

# Behind which a class that was never seen has probability 0, as in the other classes.
_FAR = 1e3


class PriorClassifier(ClipColumns):
    """Predicts the frequencies of the classes, whatever is in a row.

    Examples
    --------
    >>> X = pd.DataFrame({"image": [None] * 3, "text": ["a", "b", "c"]})
    >>> PriorClassifier().fit(X, [0, 1, 1]).predict_proba(X).round(2)[0].tolist()
    [0.33, 0.67]
    """

    def fit(self, X, y, sample_weight=None) -> PriorClassifier:
        """Count the labels; see :meth:`BaseMultimodalClassifier.fit`."""
        with self._unchanged_on_failure():
            self._check_parameters()
            self._learn(*_read(self, X, y, sample_weight))
        return self

    def _learn(self, rows, targets: Targets, weights: np.ndarray) -> None:
        self.n_trainable_parameters_ = len(self.classes_)
        in_loss = targets.weights(self.class_weight, weights)
        self._log_prior = log_odds_of(targets.prior(in_loss), targets.multilabel)

    def _log_odds(self, X) -> np.ndarray:
        check_is_fitted(self)
        return np.tile(self._log_prior, (len(self._check_X(X, reset=False)), 1))

    _KEPT = ("_log_prior",)

    @classmethod
    def _check_saved(cls, state: dict) -> None:
        check_array(state, "_log_prior", state["classes_"].shape)


class TfidfClassifier(PriorClassifier):
    """Logistic regression on the words of the text; the image is not opened.

    Words and pairs of words, weighted by how rare they are in the training texts. A row
    without a text is predicted as the class frequencies.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty on squared weights.
    max_features : int
        Words and pairs at most, the most frequent ones.
    max_iter : int
        Iterations of the solver at most.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in the order of the outputs.
    vocabulary_ : list of str
        The words and pairs.
    idf_ : ndarray of shape (n_words,)
        How rare each is.
    coef_, intercept_ : ndarrays of shape (n_classes, n_words) and (n_classes,)
        What the regression has learned.

    Examples
    --------
    >>> X = pd.DataFrame({"image": [None] * 4, "text": ["red", "blue", "red", None]})
    >>> clf = TfidfClassifier(C=100.0).fit(X, ["r", "b", "r", "b"])
    >>> clf.predict(X[:3]).tolist()
    ['r', 'b', 'r']
    """

    C: float = 5.0
    max_features: int = 20_000
    max_iter: int = 1000

    _KEPT = ("_log_prior", "vocabulary_", "idf_", "coef_", "intercept_")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("C", self.C, Real, 0, open="low")
        check_number("max_features", self.max_features, Integral, 1)
        check_number("max_iter", self.max_iter, Integral, 1)

    def _learn(self, rows, targets: Targets, weights: np.ndarray) -> None:
        super()._learn(rows, targets, weights)
        there = np.flatnonzero(_has_text(rows) & (weights > 0))
        texts = [rows.texts[i] for i in there]
        words = _words(max_features=self.max_features)
        try:
            features = words.fit_transform(texts)
        except ValueError as error:  # no text, or none with a word
            raise ValueError(
                "text cells must have a word at least, got none in "
                f"{len(texts)} texts of {len(rows)} rows."
            ) from error
        self.vocabulary_ = words.get_feature_names_out().tolist()
        self.idf_ = words.idf_.astype(np.float32)
        in_loss = targets.weights(self.class_weight, weights)[there]
        # Their ratios alone count, or C would mean another strength.
        in_loss = in_loss / in_loss.mean()
        solved = self._solve(features, targets.encoded[there], in_loss)
        self.coef_, self.intercept_ = (part.astype(np.float32) for part in solved)
        self.n_trainable_parameters_ = self.coef_.size + self.intercept_.size

    def _solve(self, features, encoded, weights) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (C, d) and intercepts (C,) in the order of classes."""
        coef = np.zeros((len(self.classes_), features.shape[1]))
        # What no text has is left to the frequencies.
        intercept = self._log_prior.copy()
        if encoded.ndim == 2:
            for label, target in enumerate(encoded.T > 0):
                if target.any() and not target.all():
                    fitted = self._regression().fit(features, target, weights)
                    coef[label], intercept[label] = (
                        fitted.coef_[0],
                        fitted.intercept_[0],
                    )
            return coef, intercept
        classes = np.unique(encoded)
        if len(classes) > 1:
            fitted = self._regression().fit(features, encoded, weights)
            intercept = np.full(len(coef), -_FAR)
            intercept[classes] = 0.0
            # Of two classes the first stays at zero.
            places = classes if len(fitted.coef_) > 1 else classes[1:]
            coef[places], intercept[places] = fitted.coef_, fitted.intercept_
        return coef, intercept

    @classmethod
    def _check_saved(cls, state: dict) -> None:
        super()._check_saved(state)
        words = state.get("vocabulary_")
        proper = isinstance(words, list) and all(isinstance(w, str) for w in words)
        if not proper or not words or len(set(words)) < len(words):
            raise ValueError("vocabulary_ must be a list of distinct words.")
        n_classes, n_words = len(state["classes_"]), len(words)
        check_array(state, "idf_", (n_words,))
        check_array(state, "coef_", (n_classes, n_words))
        check_array(state, "intercept_", (n_classes,))

    def _regression(self) -> LogisticRegression:
        return LogisticRegression(C=self.C, max_iter=self.max_iter)

    def _log_odds(self, X) -> np.ndarray:
        logits = super()._log_odds(X)
        rows = self._check_X(X, reset=False)
        there = np.flatnonzero(_has_text(rows))
        if len(there):
            words = _words(vocabulary=self.vocabulary_)
            words.idf_ = self.idf_.astype(np.float64)
            features = words.transform([rows.texts[i] for i in there])
            logits[there] = features @ self.coef_.T.astype(np.float64) + self.intercept_
        return logits


def _has_text(rows: Rows) -> np.ndarray:
    return np.array([text is not None for text in rows.texts], dtype=bool)


def _read(clf: TableClassifier, X: pd.DataFrame, y, sample_weight) -> tuple:
    """Return rows, labels and weights, and set what every classifier has."""
    rows, targets = clf._check_X(X, reset=True), clf._encode(y)
    weights = clf._check_weights(rows, targets, sample_weight)
    rows_to_train(rows, weights)
    clf._take_labels(targets, weights)
    return rows, targets, weights


def _words(**options) -> TfidfVectorizer:
    return TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **options
    )


def check_array(state: dict, name: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a saved attribute is finite numbers of a shape."""
    value = state.get(name)
    proper = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    if not proper or value.shape != shape or not np.isfinite(value).all():
        raise ValueError(f"{name} must be finite numbers of shape {shape}.")
