"""An image+text classifier as a transformer that does not leak into what follows."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import Tags, _safe_indexing, check_consistent_length, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from ..checks import check_choice
from ..evaluation.calibration import one_column_per_label
from .cross_fitting import (
    MULTILABEL,
    cross_fit,
    route,
    split_rows,
)

METHODS = ("predict_proba", "decision_function", "transform")


class OutOfFoldFeatures(TransformerMixin, BaseEstimator):
    """Outputs of a classifier as columns for another one, cross-fitted in training.

    A classifier is too sure of the rows that it was fitted on. If its outputs for them
    were columns of a table, whatever is fitted on that table would trust them too much.
    So :meth:`fit_transform` reads each row with a classifier that was fitted without
    it, and :meth:`transform` reads new rows with one that was fitted on all. Inside a
    ``ColumnTransformer`` it takes the image and the text column, beside transformers
    of numbers and categories. As for scikit-learn's ``TargetEncoder``,
    ``fit(X, y).transform(X)`` does not equal ``fit_transform(X, y)``, and is not what
    another estimator should be trained on.

    Parameters
    ----------
    estimator : classifier
        Of robustmm, a pipeline around one, or any other. It is cloned.
    method : {"predict_proba", "decision_function", "transform"}, \
default="predict_proba"
        Whose output becomes the columns. ``"transform"`` gives features, and is
        sensible only where they do not depend on the fit: those of
        :class:`LinearProbeClassifier`, or of :class:`FineTuneClassifier` with
        ``tune="head"``. Each fit of a method that trains inside of the encoders has
        axes of its own: a column then means something else in each fold, and something
        else again for new rows, which :meth:`fit_transform` warns of.
    cv : int, splitter or iterable, default=5
        How rows are divided; each must be left out once. A number stands for
        ``StratifiedKFold``, or ``KFold`` for an indicator matrix.
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
    classes_ : ndarray of shape (n_classes,)
        Labels, as the classifier has them.
    n_features_in_, feature_names_in_
        Columns seen in ``fit``, where the classifier has them.

    See Also
    --------
    sklearn.ensemble.StackingClassifier : The same for several classifiers, whose
        outputs are all that the last one sees.

    Notes
    -----
    Of two classes there is one column, the second class's. The probability of a class
    that a fold's rows lack is zero in its rows. It takes ``cv + 1`` fits.

    Examples
    --------
    >>> from sklearn.compose import ColumnTransformer
    >>> from robustmm import LinearProbeClassifier
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(40, n_classes=3, random_state=0)
    >>> X["price"] = range(40)
    >>> probe = LinearProbeClassifier("robustmm/tiny-clip")
    >>> features = OutOfFoldFeatures(probe, cv=2, random_state=0)
    >>> table = ColumnTransformer(
    ...     [("seen", features, ["image", "text"]), ("paid", "passthrough", ["price"])]
    ... )
    >>> table.fit_transform(X, y).shape
    (40, 4)
    >>> for name in table.get_feature_names_out():
    ...     print(name)
    seen__linearprobeclassifier_beach
    seen__linearprobeclassifier_city
    seen__linearprobeclassifier_forest
    paid__price
    """

    def __init__(
        self,
        estimator,
        *,
        method="predict_proba",
        cv=5,
        shuffle=True,
        random_state=None,
        n_jobs=None,
    ):
        self.estimator = estimator
        self.method = method
        self.cv = cv
        self.shuffle = shuffle
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: pd.DataFrame, y: ArrayLike, **params) -> OutOfFoldFeatures:
        """Fit the classifier on all rows.

        Parameters
        ----------
        X : DataFrame
            What the classifier reads.
        y : array-like of shape (n,), or indicator matrix of shape (n, L)
            Labels.
        **params : dict
            ``sample_weight`` and whatever else the classifier's ``fit`` takes. Routed
            as the classifier asks for, if scikit-learn's metadata routing is on.

        Returns
        -------
        self
        """
        self._check(X, y)
        fit_params, _, _ = route(self, "fit", params)
        return self._keep(self._fitted(X, y, fit_params), y)

    def fit_transform(self, X: pd.DataFrame, y: ArrayLike, **params) -> np.ndarray:
        """Fit, and return outputs for rows that are unknown to who gives them.

        Parameters
        ----------
        X, y
            As in :meth:`fit`.
        **params : dict
            As in :meth:`fit`, and ``groups`` for a splitter that takes them.

        Returns
        -------
        ndarray of shape (n, n_columns)
            In the order of the rows. Not equal to ``fit(X, y).transform(X)``.

        Raises
        ------
        ValueError
            If ``cv`` does not leave each row out once, or if a fold's rows lack a class
            and ``method="decision_function"``.
        """
        self._check(X, y)
        fit_params, split_params, _ = route(self, "fit_transform", params)
        folds = split_rows(self.cv, self.shuffle, self.random_state, y, split_params)
        estimator = self._fitted(X, y, fit_params)
        parts = cross_fit(
            self.estimator, X, y, folds, self._read, fit_params, self.n_jobs
        )
        fitted = clone(self)._keep(estimator, y)
        columns = fitted._joined(parts, folds)
        if self.method == "transform":
            rows = folds[0][1]
            _warn_of_axes(columns[rows], fitted.transform(_safe_indexing(X, rows)))
        self._keep(estimator, y)
        return columns

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Return outputs (n, n_columns) of the classifier that all rows have trained.

        For the rows of ``fit`` they are in-sample: see :meth:`fit_transform`.
        """
        check_is_fitted(self)
        return self._aligned(*self._read(self.estimator_, X))

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """Return a name per column: the classifier's class, and the label."""
        check_is_fitted(self)
        _check_feature_names_in(self, input_features, generate_names=False)
        if self.method == "transform":
            return self.estimator_.get_feature_names_out()
        prefix = type(self.estimator).__name__.lower()
        labels = self.classes_
        if isinstance(labels, list):  # scikit-learn's of several labels: 0 and 1 each
            labels = range(len(labels))
        elif self._takes_second():
            labels = labels[1:]
        return np.array([f"{prefix}_{label}" for label in labels], dtype=object)

    def get_metadata_routing(self) -> MetadataRouter:
        """Return who gets which of the parameters of ``fit``."""
        to_fit = MethodMapping().add(caller="fit", callee="fit")
        to_fit.add(caller="fit_transform", callee="fit")
        to_split = MethodMapping().add(caller="fit_transform", callee="split")
        router = MetadataRouter(owner=self)
        router.add(estimator=self.estimator, method_mapping=to_fit)
        return router.add(splitter=self.cv, method_mapping=to_split)

    def __sklearn_tags__(self) -> Tags:
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.input_tags, tags.non_deterministic = (
            inner.input_tags,
            inner.non_deterministic,
        )
        tags.target_tags.required = True
        return tags

    def _check(self, X, y) -> None:
        check_choice("method", self.method, METHODS)
        if y is None:
            raise ValueError(
                f"y must be the labels, which {type(self).__name__} requires to be "
                "passed, got None."
            )
        if pd.isna(np.asarray(y, dtype=object)).any():
            raise ValueError("y must not have missing labels, got None or NaN in it.")
        if not hasattr(self.estimator, self.method):
            raise TypeError(
                f"estimator must have {self.method}, got "
                f"{type(self.estimator).__name__}, which has not."
            )
        check_consistent_length(X, y)

    def _fitted(self, X, y, params: dict):
        return clone(self.estimator).fit(X, y, **params)

    def _keep(self, estimator, y) -> OutOfFoldFeatures:
        self.estimator_ = estimator
        self._multilabel = type_of_target(y) == MULTILABEL
        for name in ("classes_", "n_features_in_", "feature_names_in_"):
            # Of an earlier fit, on other columns, nothing may stay.
            vars(self).pop(name, None)
            if hasattr(estimator, name):
                setattr(self, name, getattr(estimator, name))
        return self

    def _read(self, estimator, X) -> tuple:
        """Return the output for rows, and the classes that its columns stand for."""
        classes = getattr(estimator, "classes_", None)
        return getattr(estimator, self.method)(X), classes

    def _joined(self, parts: list[tuple], folds: list[tuple]) -> np.ndarray:
        found = [self._aligned(*part) for part in parts]
        columns = np.empty((sum(map(len, found)), found[0].shape[1]))
        for (_, rows), values in zip(folds, found, strict=True):
            columns[rows] = values
        return columns

    def _aligned(self, output, classes) -> np.ndarray:
        """Return an output with the columns that all rows have."""
        if self.method == "transform":
            return np.asarray(output)
        if self._multilabel:
            return one_column_per_label(output, classes)
        output = np.asarray(output)
        absent = set(self.classes_) - set(classes)
        # A saved model that was changed: no fold has classes that all rows have not.
        if unknown := set(classes) - set(self.classes_):
            raise ValueError(
                "The classifier must know the classes of the fit only, got "
                f"{str(unknown.pop())!r:.80} as well."
            )
        if self.method == "decision_function":
            if absent:
                raise ValueError(
                    "Each fold must have rows of every class for "
                    "method='decision_function', but one has none of "
                    f"{str(absent.pop())!r}: pass method='predict_proba'."
                )
            return output.reshape(len(output), -1)
        columns = np.zeros((len(output), len(self.classes_)))
        places = {label: i for i, label in enumerate(self.classes_)}
        columns[:, [places[label] for label in classes]] = output
        # The other one says nothing more, as in scikit-learn's stacking.
        return columns[:, 1:] if self._takes_second() else columns

    def _takes_second(self) -> bool:
        return not self._multilabel and len(self.classes_) == 2


def _warn_of_axes(columns: np.ndarray, by_all: np.ndarray) -> None:
    """Warn if features of the same rows depend on who was trained on which rows."""
    near = 1e-3 * max(np.abs(by_all).max(initial=0), 1e-12)
    if columns.shape == by_all.shape and np.allclose(columns, by_all, 1e-3, near):
        return
    warnings.warn(
        "The features of each fold have axes of their own, as the method trains inside "
        "of its encoders: a column means something else for new rows. Pass "
        "method='predict_proba', or a LinearProbeClassifier.",
        stacklevel=3,
    )
