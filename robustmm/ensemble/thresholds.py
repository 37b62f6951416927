"""One threshold per label of a multilabel classifier, tuned by cross-validation."""

from __future__ import annotations

from functools import partial
from numbers import Integral

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.metrics import check_scoring
from sklearn.utils import Tags, check_consistent_length, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from ..checks import check_choice, check_number
from ..evaluation.calibration import one_column_per_label
from .cross_fitting import (
    MULTILABEL,
    cross_fit,
    route,
    split_rows,
)
from .tuning import (
    candidates,
    score_labels,
    score_of_counts,
    score_per_label,
    tune_each,
    tune_together,
)

# Where scikit-learn and robustmm set a label if nobody says otherwise.
_DEFAULTS = {"predict_proba": 0.5, "decision_function": 0.0}


def _has(method: str):
    return lambda self: hasattr(self.estimator, method)


class TunedThresholdsClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Multilabel classifier with a threshold per label, tuned by cross-validation.

    A label is set where its probability reaches the label's threshold. One half is the
    best for the share of right labels; for F1, and most of all for rare labels, lower
    ones are better. They are tuned on the outputs for rows that were left out of the
    fit, as scikit-learn's ``TunedThresholdClassifierCV`` does for two classes, which
    takes no indicator matrix.

    Parameters
    ----------
    estimator : classifier
        That takes an indicator matrix; it is cloned. One that is fitted already is
        wrapped in scikit-learn's ``FrozenEstimator``: thresholds are then tuned on the
        rows given to :meth:`fit`, which should be others than it was fitted on.
    scoring : str or callable, default="f1_macro"
        Any scorer of predicted labels. Averages over labels (``"f1_macro"``,
        ``"precision_weighted"``, ...) are tuned label by label, at once. For others,
        such as ``"f1_micro"``, ``"f1_samples"``, ``"accuracy"`` or one of your own, the
        labels are gone through in turn until no single threshold betters the score.
    thresholds : int or array-like of shape (T,), default=100
        How many thresholds are tried per label, taken at even steps through the rows,
        or which. The usual one, one half, is always tried as well, so that the score on
        the rows that were left out is never below its.
    response_method : {"auto", "predict_proba", "decision_function"}, default="auto"
        What is compared with thresholds; ``"auto"`` is the first that there is.
    cv : int, splitter or iterable, default=5
        How rows are divided; each must be left out once. A number stands for ``KFold``.
    shuffle : bool, default=True
        Whether rows are shuffled first, if ``cv`` is a number.
    random_state : int, RandomState instance or None, default=None
        Seeds the shuffling. The classifier's is its own.
    n_jobs : int, default=None
        Folds that are fitted at a time, as in scikit-learn.

    Attributes
    ----------
    estimator_ : classifier
        Fitted on all rows.
    thresholds_ : ndarray of shape (L,)
        Of equally good ones, that which is nearest to the usual one: a label that all
        rows have, or none, may keep it.
    best_scores_ : ndarray of shape (L,)
        Score of each label at its threshold, on the rows that were left out; for a
        score that is no average over labels, that of all of them together.
    best_score_ : float
        The scorer's score at the thresholds, on the rows that were left out.
    classes_ : ndarray of shape (L,)
        Labels, as the classifier has them.

    See Also
    --------
    sklearn.model_selection.TunedThresholdClassifierCV : For two classes.

    Notes
    -----
    All left-out rows are scored together, where scikit-learn averages over folds: a
    rare label is in few of them. :meth:`predict_proba` stays as it is, so that its half
    is no longer where :meth:`predict` changes its mind. ``best_score_`` is in-sample as
    to the thresholds; evaluate on other rows.

    Examples
    --------
    >>> import pandas as pd
    >>> from robustmm import LinearProbeClassifier
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=3, random_state=0)
    >>> Y = pd.get_dummies(y).assign(sea=y == "beach").astype(int)
    >>> probe = LinearProbeClassifier("robustmm/tiny-clip")
    >>> tuned = TunedThresholdsClassifier(probe, cv=3, random_state=0).fit(X, Y)
    >>> tuned.thresholds_.shape, tuned.predict(X).shape
    ((4,), (60, 4))
    >>> tuned.best_score_ >= 0.5
    True
    """

    def __init__(
        self,
        estimator,
        *,
        scoring="f1_macro",
        thresholds=100,
        response_method="auto",
        cv=5,
        shuffle=True,
        random_state=None,
        n_jobs=None,
    ):
        self.estimator = estimator
        self.scoring = scoring
        self.thresholds = thresholds
        self.response_method = response_method
        self.cv = cv
        self.shuffle = shuffle
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: pd.DataFrame, y: ArrayLike, **params) -> TunedThresholdsClassifier:
        """Fit the classifier, and tune the thresholds on rows it has not seen.

        Parameters
        ----------
        X : DataFrame
            What the classifier reads.
        y : indicator matrix of shape (n, L)
            Labels, as an array or a DataFrame.
        **params : dict
            For the classifier's ``fit``, such as ``sample_weight``, and ``groups`` for
            the splitter. With scikit-learn's metadata routing they go where they are
            asked for, to the scorer as well.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If ``y`` is no indicator matrix, or ``scoring`` no score of labels.
        """
        self._check(X, y)
        method = self._method()
        fit, split, score = route(self, "fit", params)
        folds = split_rows(self.cv, self.shuffle, self.random_state, y, split)
        read = partial(_read, method=method)
        parts = cross_fit(self.estimator, X, y, folds, read, fit, self.n_jobs)
        truth = np.asarray(y).astype(int)
        scores = np.empty(truth.shape)
        for (_, rows), values in zip(folds, parts, strict=True):
            scores[rows] = values
        tuned = self._tune(X, truth, scores, _DEFAULTS[method], score)
        estimator = clone(self.estimator).fit(X, y, **fit)
        self.thresholds_, self.best_scores_, self.best_score_ = tuned
        self.estimator_ = estimator
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
            if hasattr(estimator, name):
                setattr(self, name, getattr(estimator, name))
        return self

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        """Return indicators (n, L): 1 where the output reaches the threshold."""
        check_is_fitted(self)
        scores = _read(self.estimator_, X, self._method())
        return (scores >= self.thresholds_).astype(int)

    @available_if(_has("predict_proba"))
    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        """Return the classifier's own probabilities (n, L)."""
        check_is_fitted(self)
        return _read(self.estimator_, X, "predict_proba")

    @available_if(_has("decision_function"))
    def decision_function(self, X: pd.DataFrame) -> np.ndarray:
        """Return the classifier's own scores (n, L), whatever the thresholds."""
        check_is_fitted(self)
        return _read(self.estimator_, X, "decision_function")

    @property
    def classes_(self):
        """Labels, as the classifier has them."""
        return self.estimator_.classes_

    def get_metadata_routing(self) -> MetadataRouter:
        """Return who gets which of the parameters of ``fit``."""

        def mapped(callee: str) -> MethodMapping:
            return MethodMapping().add(caller="fit", callee=callee)

        router = MetadataRouter(owner=self)
        router.add(estimator=self.estimator, method_mapping=mapped("fit"))
        router.add(splitter=self.cv, method_mapping=mapped("split"))
        return router.add(scorer=self._scorer(), method_mapping=mapped("score"))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "thresholds_")

    def __sklearn_tags__(self) -> Tags:
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.input_tags = inner.input_tags
        tags.non_deterministic = inner.non_deterministic
        tags.classifier_tags.multi_label = True
        return tags

    def _check(self, X, y) -> None:
        check_choice("response_method", self.response_method, ("auto", *_DEFAULTS))
        if isinstance(self.thresholds, Integral):
            check_number("thresholds", self.thresholds, Integral, 1)
        elif np.ndim(self.thresholds) != 1 or not np.isfinite(self.thresholds).all():
            raise ValueError(
                "thresholds must be a count or an array of finite numbers, got "
                f"{self.thresholds!r}."
            )
        kind = type_of_target(y, input_name="y")
        if kind != MULTILABEL:
            raise ValueError(
                "y must be an indicator matrix of at least two labels, got a "
                f"{kind} target. Two classes are for scikit-learn's "
                "TunedThresholdClassifierCV; of more classes the most probable one is "
                "predicted, by no threshold."
            )
        check_consistent_length(X, y)

    def _method(self) -> str:
        if self.response_method != "auto":
            return self.response_method
        known = [method for method in _DEFAULTS if hasattr(self.estimator, method)]
        return next(iter(known), "predict_proba")

    def _scorer(self):
        return check_scoring(self.estimator, scoring=self.scoring)

    def _tune(self, X, truth, scores, default: float, params: dict) -> tuple:
        """Return thresholds, their scores, and the scorer's for all of them."""
        cuts = [self._candidates(column, default) for column in scores.T]
        scorer = self._scorer()
        of_all = partial(score_labels, scorer, X, truth, params=params)
        weighted = set(params) <= {"sample_weight"}
        of_each = score_per_label(scorer) if weighted else None
        of_counts = score_of_counts(scorer) if weighted else None
        if of_each is not None:
            of_each = partial(of_each, **params)
            thresholds, values = tune_each(of_each, truth, scores, cuts, default)
        else:
            fast = of_counts and partial(of_counts, truth, **params)
            score = fast or of_all
            thresholds, values = tune_together(score, truth, scores, cuts, default)
        return thresholds, values, of_all((scores >= thresholds).astype(int))

    def _candidates(self, scores: np.ndarray, default: float) -> np.ndarray:
        if isinstance(self.thresholds, Integral):
            return candidates(scores, self.thresholds, default)
        return np.union1d(self.thresholds, [default])


def _read(estimator, X, method: str) -> np.ndarray:
    output = getattr(estimator, method)(X)
    return one_column_per_label(output, getattr(estimator, "classes_", None))
