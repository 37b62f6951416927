"""Labels that come in tasks, one task after another: what is known so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Number

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse

from .targets import Targets, as_labels, encode_targets


@dataclass(frozen=True, eq=False)
class TaskLabels:
    """The labels of the tasks that were learned, and how often they were seen.

    It never changes: :meth:`add` returns what is known after one more call, so that an
    estimator whose training fails still has what it knew before. Made without
    arguments, it knows nothing.

    Parameters
    ----------
    tasks : sequence of ndarray
        The labels that each task brought, in the order of learning.
    current : int
        The task of the last call; -1 before the first.
    multilabel : bool
        Whether a row may have several labels, or none.
    seen : tuple of (float, dict)
        Sum of the weights of all rows, and for each label of the rows that have it.

    Examples
    --------
    >>> labels = TaskLabels()
    >>> for y in (["dog", "cat"], ["bee", "ant"], ["dog", "dog"]):
    ...     labels = labels.add(labels.encode(y), weights=np.ones(2))
    >>> labels.classes.tolist(), labels.columns, labels.current
    (['ant', 'bee', 'cat', 'dog'], [[2, 3], [0, 1]], 0)
    >>> labels.prior.round(2).tolist()
    [0.17, 0.17, 0.17, 0.5]
    """

    tasks: Sequence[np.ndarray] = ()
    current: int = -1
    multilabel: bool = False
    seen: tuple[float, dict] = (0.0, {})

    @property
    def classes(self) -> np.ndarray:
        """All labels, (C,): sorted; those of indicators in the order of learning."""
        together = np.concatenate([*self.tasks] or [[]])
        return together if self.multilabel else np.unique(together)

    @property
    def columns(self) -> list[list[int]]:
        """For each task, where its labels are among all."""
        place = {label: i for i, label in enumerate(self.classes.tolist())}
        return [[place[label] for label in task.tolist()] for task in self.tasks]

    @property
    def prior(self) -> np.ndarray:
        """Weighted frequency of each label among all rows seen, (C,)."""
        # By label: where a class stands changes with those that come later.
        total, by_label = self.seen
        return np.array([by_label[c] for c in self.classes.tolist()]) / total

    def encode(self, y: ArrayLike, classes: ArrayLike | None = None) -> Targets:
        """Check the labels of one call and encode them among those of their task.

        Parameters
        ----------
        y : array-like of shape (n,), or indicator matrix of shape (n, L)
            Labels, all new or all of one task. Indicators whose columns are to be told
            from those of other tasks come as a DataFrame.
        classes : array-like, optional
            Labels that a new task has beside those in ``y``; known ones are ignored.

        Raises
        ------
        ValueError
            For labels of several tasks, for known and new ones together, and for labels
            of another kind than those of the first call.
        """
        announced = [] if classes is None else as_labels(classes).tolist()
        if not self.tasks:
            return encode_targets(y, classes if announced else None, n_least=1)
        self.check_kind(y)
        # Any classes will do here; it is the labels in y that decide.
        targets = encode_targets(y, self.classes, self.multilabel, n_least=1)
        labels = targets.classes if self.multilabel else np.unique(targets.original)
        known = set(self.classes.tolist())
        old = [c for c in labels.tolist() if c in known]
        new = [c for c in [*labels.tolist(), *announced] if c not in known]
        if not new:
            return self._encode_further(y, old)
        if old:
            raise ValueError(
                "The labels of a call must be all new, or all of one earlier task, got "
                f"new {new[:5]} and known {old[:5]}."
            )
        # Encoded anew, among the labels of the task alone: its head has outputs for no
        # other.
        if self.multilabel:
            return targets
        return encode_targets(y, np.unique(new), n_least=1)

    def _encode_further(self, y, labels: list) -> Targets:
        """Encode labels that are known already."""
        places = {i for i, c in enumerate(self.tasks) if set(labels) & set(c.tolist())}
        if len(places) > 1:
            raise ValueError(
                "The labels of a call must belong to one task, got labels of the tasks "
                f"{sorted(places)}: {labels[:10]}."
            )
        classes = self.tasks[places.pop()]
        if not self.multilabel:
            return encode_targets(y, classes, n_least=1)
        if len(labels) < len(classes):
            raise ValueError(
                "To go on with a task, y must have all of its columns, "
                f"{classes.tolist()}, got {labels}."
            )
        # In the order in which the task was learned, whatever the order of this table.
        y = y[list(classes)] if isinstance(y, pd.DataFrame) else y
        return encode_targets(y, multilabel=True)

    def check_kind(self, y: ArrayLike) -> None:
        """Refuse labels unlike the first call's: NumPy would turn numbers to texts."""
        matrix = np.ndim(y) == 2 and (self.multilabel or np.shape(y)[1] > 1)
        same = matrix == self.multilabel
        if same and not matrix and np.size(y) > 0:
            kinds = [isinstance(np.ravel(v)[0], Number) for v in (y, self.classes)]
            same = kinds[0] == kinds[1]
        if not same:
            kind = "an indicator matrix" if self.multilabel else "one label per row"
            raise ValueError(
                f"y must be of the kind of the first call, {kind} with labels like "
                f"{self.classes[:3].tolist()}, got {y!r:.100}."
            )

    def encode_columns(self, y: ArrayLike) -> Targets:
        """Encode indicators of any labels among those that are known and the new ones.

        Returns
        -------
        Targets
            Whose ``encoded`` is NaN in the columns of labels that ``y`` has not.

        Raises
        ------
        ValueError
            For an array, whose columns have no names, of another width than the labels
            that are known by names.

        Examples
        --------
        >>> known = TaskLabels([np.array(["war", "drama"], dtype=object)], 0, True)
        >>> targets = known.encode_columns(pd.DataFrame({"drama": [1], "comedy": [0]}))
        >>> targets.classes.tolist(), targets.encoded.tolist()
        (['war', 'drama', 'comedy'], [[nan, 1.0, 0.0]])
        """
        found, known = encode_targets(y, multilabel=True), self.classes
        names = found.classes
        if not isinstance(y, pd.DataFrame) and known.dtype == object:
            if len(names) != len(known):
                raise ValueError(
                    "Indicators without names must have the columns that are known, "
                    f"{known.tolist()}, got {len(names)}."
                )
            names = known
        new = [name for name in names.tolist() if name not in known.tolist()]
        union = np.concatenate([known, np.array(new, dtype=known.dtype)])
        places = [union.tolist().index(name) for name in names.tolist()]
        encoded = np.full((len(found.encoded), len(union)), np.nan, dtype=np.float32)
        encoded[:, places] = found.encoded
        return Targets(union, encoded, found.original)

    def drop_columns(self, y: ArrayLike) -> ArrayLike:
        """Keep the columns of indicators that are new and have a positive.

        Those are what one task brings where the indicators of all tasks are in one
        table. An array's columns are named by their positions; labels that are no
        indicators are returned as they are.
        """
        if np.ndim(y) != 2:
            return y
        table = y
        if not isinstance(y, pd.DataFrame):
            table = pd.DataFrame(y.toarray() if sparse.issparse(y) else np.asarray(y))
        if table.shape[1] == 1 and not self.multilabel:
            return y
        known = table.columns.isin(self.classes.tolist())
        # A column without a positive is of a later task, or teaches nothing.
        return table.loc[:, table.any(axis=0) & ~known]

    def add(self, targets: Targets, weights: np.ndarray) -> TaskLabels:
        """Return what is known with the rows of one call, which :meth:`encode` read.

        Parameters
        ----------
        targets : Targets
            Of a new task, or of one that goes on.
        weights : ndarray of shape (n,)
            Weight of each row.
        """
        tasks, labels = list(self.tasks), targets.classes.tolist()
        names = [task.tolist() for task in tasks]
        if labels not in names:
            tasks, names = [*tasks, targets.classes], [*names, labels]
        total, by_label = self.seen
        # Sums, not shares: a prior over all calls needs no row of the earlier ones.
        added = dict(zip(labels, targets.prior(weights) * weights.sum(), strict=True))
        by_label = by_label | {c: by_label.get(c, 0.0) + w for c, w in added.items()}
        seen = total + weights.sum(), by_label
        return TaskLabels(tasks, names.index(labels), targets.multilabel, seen)
