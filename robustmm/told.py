"""The classifier that finds the task of a row, unless the caller tells it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from numbers import Real
from typing import ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.utils import _safe_indexing, check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.utils.data import Subset

from .adapters import OAS, group_parts
from .backbones import Backbone, check_layers
from .checks import check_choice, check_number
from .data.targets import Targets
from .incremental import IncrementalClassifier
from .training.net import Net

ORACLE = "oracle"
INFERENCES = ("gaussian", "nearest", ORACLE)
# What the first release called the closest key; its saved models have it.
_FORMER = "predicted"


class TaskFindingClassifier(IncrementalClassifier):
    """Base class of incremental classifiers that predict by the task of each row.

    What is read from a method's module takes ``told``, a task or None, and ``nearest``,
    whether the task is that of the closest key. The module has ``tasks``, whose
    members have ``moments``, a ``finder``, a :class:`TaskFinder`, and the methods
    ``task_scores`` and ``key_vectors``; it is built with :meth:`_key_options`.

    Parameters
    ----------
    task_inference : {"gaussian", "nearest", "oracle"}
        How the task of a row is found: by Gaussians with one covariance, which weigh
        all tasks and classes; as that of the closest key, which the paper does; or it
        must be told by :meth:`with_tasks`, without which nothing is predicted then.
    keys_per : {"class", "task"}
        Whether each class has a Gaussian, or the rows of a task together. With several
        labels it is always the task.
    key_layers : pair of int
        After how many frozen layers the Gaussians look at the image, and at the text: 0
        is the embedding, -1 what leaves the last. Each row is run through them once
        more.
    shrinkage : float or "oas"
        Part of the Gaussians' covariance, in [0, 1], that is replaced by the same
        variance in all directions; "oas" is the oracle approximation, which is larger
        for fewer rows.

    Examples
    --------
    >>> from robustmm import DeLoClassifier
    >>> DeLoClassifier.__base__.__name__
    'TaskFindingClassifier'
    """

    _KEPT: ClassVar[tuple] = (*IncrementalClassifier._KEPT, "_told", "_keys")

    task_inference: str = "gaussian"
    keys_per: str = "class"
    key_layers: Sequence[int] = (1, 0)
    shrinkage: float | str = OAS

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.task_inference != _FORMER:
            check_choice("task_inference", self.task_inference, INFERENCES)
        check_choice("keys_per", self.keys_per, ("class", "task"))
        if self.shrinkage != OAS:
            check_number("shrinkage", self.shrinkage, Real, 0, 1)

    def _check_backbone(self, backbone: Backbone) -> None:
        super()._check_backbone(backbone)
        check_layers("key_layers", self.key_layers, backbone)

    @property
    def _nearest(self) -> bool:
        """Whether tasks are found by their closest key."""
        return self.task_inference in ("nearest", _FORMER)

    # Learning ------------------------------------------------------------------------

    def _take_labels(self, targets: Targets, weights: np.ndarray) -> None:
        keys = {"per": self.keys_per, "layers": list(self.key_layers)}
        if not self.__sklearn_is_fitted__():
            self._keys = None if self._nearest else keys
        elif not self._nearest and self._kept_keys != keys:
            raise ValueError(
                "task_inference, keys_per and key_layers must stay those of the first "
                f"call, which kept {self._kept_keys}, got {keys}."
            )
        super()._take_labels(targets, weights)
        vars(self).pop("_told", None)

    @property
    def _kept_keys(self) -> dict | None:
        """Of what the Gaussians are; models of the first release have none."""
        return getattr(self, "_keys", None)

    def _key_options(self) -> dict:
        """Return what the module needs to know of the Gaussians."""
        keys = self._kept_keys
        if keys is None:
            return {}
        per_class = keys["per"] == "class" and not self._multilabel
        return {"key_layers": keys["layers"], "keys_per_class": per_class}

    def _train(self, module: nn.Module, train: Subset, held_out: Subset, draws) -> Net:
        net = super()._train(module, train, held_out, draws)
        if module.key_layers is not None:
            self._sum_keys(net, train)
            moments = [task.moments for task in module.tasks]
            module.finder.set(moments, self.shrinkage)
        return net

    def _sum_keys(self, net: Net, train: Subset) -> None:
        """Add the rows of this call to the moments of its task."""
        module, places = net.module_, train.indices
        labels, weights = (
            np.asarray(values)[places]
            for values in (train.dataset.targets, train.dataset.weights)
        )
        if not module.keys_per_class:
            labels = np.zeros(len(labels), dtype=np.int64)
        moments = module.tasks[self._task].moments
        parts = group_parts(labels, len(moments.rows), weights)
        present, done = torch.from_numpy(train.dataset.rows.present[places]), 0
        read = type(module).key_vectors
        for vectors in net.read(train, read):
            here = slice(done, done := done + len(vectors))
            moments.update(vectors.chunk(2, dim=1), present[here], parts[here])

    # Prediction ----------------------------------------------------------------------

    def with_tasks(self, tasks: ArrayLike) -> Self:
        """Return a twin whose predictions take the task of each row from the caller.

        For analysis: how good is the model where the right task is found? The twin
        shares the fitted net, and predicts, scores and transforms tables of as many
        rows as there are tasks. What it learns further is its own and ends the telling.

        Parameters
        ----------
        tasks : array-like of shape (n,), int
            The task of each row, in the order of learning from 0.

        Raises
        ------
        NotFittedError
            If no task was learned yet.
        ValueError
            For a task that was not learned.
        """
        check_is_fitted(self)
        tasks, n_tasks = column_or_1d(tasks), len(self.task_classes_)
        if not np.isin(tasks, range(n_tasks)).all():
            raise ValueError(
                f"tasks must be in [0, {n_tasks - 1}], got {np.unique(tasks).tolist()}."
            )
        twin = copy(self)
        twin._told = tasks.astype(np.int64)
        return twin

    def predict_task(self, X: pd.DataFrame) -> np.ndarray:
        """Return the task that is found for each row, (n,) int, in order of learning.

        -1 for a row without any modality. Tasks that are told are not looked at.
        """
        check_is_fitted(self)
        scores, empty = self._find(X, type(self.net_.module_).task_scores)
        return np.where(empty, -1, scores.argmax(axis=1))

    def _find(self, X, read: Callable) -> tuple[np.ndarray, np.ndarray]:
        """Return what is read for the tasks that are found, whatever is told."""
        return super()._evaluate(X, self._inferring(read))

    def _inferring(self, read: Callable) -> Callable:
        """Return a reader that finds tasks as the parameter says."""
        # Where tasks are told, either way: keys are what every model has.
        has_none = self._kept_keys is None
        if self._nearest or (has_none and self.task_inference == ORACLE):
            return partial(read, nearest=True)
        if has_none:
            raise ValueError(
                'task_inference must be "nearest" for a model that was fitted so and '
                f"has no Gaussians, got {self.task_inference!r}."
            )
        return read

    def _evaluate(
        self, X, read: Callable = operator.call
    ) -> tuple[np.ndarray, np.ndarray]:
        """Extend the base's by the tasks that are told."""
        told = getattr(self, "_told", None)
        if told is None:
            if self.task_inference == ORACLE and self.__sklearn_is_fitted__():
                raise ValueError(
                    'With task_inference="oracle" the task of each row must be told: '
                    "call with_tasks(tasks).predict(X), and likewise for others."
                )
            check_is_fitted(self)
            return self._find(X, read)
        check_consistent_length(X, told)
        parts = []
        for task in np.unique(told):
            rows = np.flatnonzero(told == task)
            some = _safe_indexing(X, rows)
            of_task = partial(read, told=int(task))
            parts.append((rows, *super()._evaluate(some, of_task)))
        order = np.concatenate([rows for rows, _, _ in parts]).argsort()
        values = np.concatenate([values for _, values, _ in parts])[order]
        return values, np.concatenate([empty for _, _, empty in parts])[order]
