"""The classifier of classes that come in tasks: what each call of it brings."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import _safe_indexing, check_consistent_length, column_or_1d

from .annotations import TableLike
from .data.targets import Targets
from .data.task_labels import TaskLabels
from .trained import MultimodalClassifier


class IncrementalClassifier(MultimodalClassifier):
    """Base class of classifiers whose classes come in tasks, one after another.

    :meth:`partial_fit` learns a new task or goes on with one, :meth:`fit` starts anew.
    A method is a subclass with parameters and ``_build_module``. At a later call
    the estimator is fitted: what earlier tasks learned is in ``net_.module_``, to be
    put into the new module. It predicts with an output for each of ``classes_``, those
    of each task at ``_labels.columns``, and trains with those of one task, ``_task``.

    Parameters
    ----------
    max_epochs : int
        Passes over the rows of a task.
    time_limit : float, optional
        Seconds for a task.
    head_init : {"random", "probe"}
        What the head of a new task starts from; that of a known one goes on.
    scoring : str, callable or None
        What early stopping looks at, on rows of the task and among its labels.
    lr_schedule : {"constant", "linear", "cosine", "polynomial", "held_polynomial"}
        Decay of the learning rate after the warm-up; it starts anew with each task.
    class_weight : "balanced", dict or None
        Weights of the classes, among those of a task.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels of all tasks in the order of the outputs: sorted, so that earlier
        classes move when new ones come; indicators in the order they were learned.
    class_prior_ : ndarray of shape (n_classes,)
        Frequency of each class in all calls together.
    task_classes_ : list of ndarray
        The labels that each task brought.
    net_ : Net
        The skorch net of the last task; the others are listed at
        :class:`MultimodalClassifier`. ``history_``, ``missing_report_`` and the count
        of trainable parameters are those of the last call.

    Examples
    --------
    >>> from robustmm import DeLoClassifier
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(24, n_classes=4, random_state=0)
    >>> first = y.isin(sorted(y.unique())[:2])
    >>> clf = DeLoClassifier("robustmm/tiny-vilt", max_epochs=1, random_state=0)
    >>> clf = clf.partial_fit(X[first], y[first]).partial_fit(X[~first], y[~first])
    >>> len(clf.task_classes_)
    2
    """

    _KEPT = ("task_classes_", "_task", "_seen_weights")

    def fit(
        self,
        X: TableLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        tasks: ArrayLike | None = None,
        validation_data: tuple | None = None,
    ) -> Self:
        """Forget everything and learn the rows as one task, or as several.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Image and text cells.
        y : array-like of shape (n,), or indicator matrix of shape (n, L)
            Labels.
        sample_weight : array-like of shape (n,), optional
            Weight of each row in the loss.
        tasks : array-like of shape (n,), optional
            The task of each row, learned in sorted order. Each task's labels must be
            its own; of indicators, a task learns the columns that are set in its rows
            and in no earlier task's.
        validation_data : tuple (X, y), optional
            Further rows to score after each epoch, as in
            :class:`MultimodalClassifier`; not with several tasks.

        Returns
        -------
        self
        """
        with self._unchanged_on_failure():
            # What makes a call one of several; the block puts them back if this one
            # fails.
            for name in ("net_", "task_classes_", "_seen_weights"):
                vars(self).pop(name, None)
            if tasks is None:
                return super().fit(X, y, sample_weight, validation_data)
            if validation_data is not None:
                raise ValueError(
                    "validation_data must be None with tasks: call partial_fit for "
                    "each task, with rows of its labels."
                )
            self._fit_tasks(X, y, sample_weight, column_or_1d(tasks))
        return self

    def _fit_tasks(self, X, y, sample_weight, tasks: np.ndarray) -> None:
        check_consistent_length(X, y, tasks, sample_weight)
        for task in np.unique(tasks):
            rows = np.flatnonzero(tasks == task)
            # A matrix for all tasks has, in the rows of one, columns of the others: all
            # zero or learned already. They would be labels that the task brings again.
            labels = self._labels.drop_columns(_safe_indexing(y, rows))
            weight = None
            if sample_weight is not None:
                weight = _safe_indexing(sample_weight, rows)
            self.partial_fit(_safe_indexing(X, rows), labels, sample_weight=weight)

    def partial_fit(
        self,
        X: TableLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        validation_data: tuple | None = None,
    ) -> Self:
        """Learn the next task, or go on with one.

        New labels make a new task. If all labels are known, the task that they belong
        to is trained further.

        Parameters
        ----------
        X : DataFrame of shape (n, ...), or object ndarray of shape (n, 2)
            Image and text cells.
        y : array-like of shape (n,), or indicator matrix of shape (n, L)
            Labels, all new or all of one task. Indicators come as a DataFrame whose
            columns name the labels.
        classes : array-like, optional
            Labels that belong to this task beside those in ``y``, for later calls;
            labels of earlier tasks among them are ignored.
        sample_weight : array-like of shape (n,), optional
            Weight of each row in the loss.
        validation_data : tuple (X, y), optional
            Further rows to score after each epoch, with labels of this task; their
            scores are among its labels.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For labels of several tasks, or known and new labels together.
        """
        with self._running(validation_data):
            self._check_parameters()
            # Later calls must have the columns of the first, as scikit-learn asks.
            rows = self._check_X(X, reset=not self.__sklearn_is_fitted__())
            targets = self._labels.encode(y, classes)
            self._fit_rows(rows, targets, sample_weight)
        return self

    def _learned_classes(self) -> tuple[np.ndarray, np.ndarray]:
        prior = self.class_prior_[self._labels.columns[self._task]]
        return self.task_classes_[self._task], prior

    @property
    def _labels(self) -> TaskLabels:
        """What earlier calls brought, from the attributes that saved models have."""
        if not hasattr(self, "task_classes_"):
            return TaskLabels()
        seen = getattr(self, "_seen_weights", (0.0, {}))
        return TaskLabels(self.task_classes_, self._task, self._multilabel, seen)

    def _take_labels(self, targets: Targets, weights: np.ndarray) -> None:
        """Set what is known with the rows of this call; ``_task`` is theirs."""
        labels = self._labels.add(targets, weights)
        self.task_classes_, self._task = labels.tasks, labels.current
        self._multilabel, self._seen_weights = labels.multilabel, labels.seen
        self.classes_, self.class_prior_ = labels.classes, labels.prior
