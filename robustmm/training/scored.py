"""Scorers of scikit-learn's on a classifier that is still trained."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from copy import copy
from functools import partial
from numbers import Real

import numpy as np
import pandas as pd
from sklearn.metrics import get_scorer, get_scorer_names
from torch.utils.data import Subset

from ..checks import check_choice
from ..data import Rows, read_rows
from .net import Net


def check_scoring(scoring) -> None:
    """Raise unless this is a scorer, or the name of one of scikit-learn's, or None."""
    if isinstance(scoring, str):
        check_choice("scoring", scoring, get_scorer_names())
    elif scoring is not None and not callable(scoring):
        raise TypeError(
            "scoring must be the name of a scorer, a scorer(estimator, X, y) or None, "
            f"got {scoring!r}."
        )


class EpochScorer:
    """Score held-out rows behind an epoch: ``scorer(net, logits, targets)``.

    The scorer of scikit-learn's gets a twin of the estimator that reads the module as
    it is now: nothing is copied or fitted. What it predicts for the held-out table is
    known from the validation; other tables, such as a part of it, are computed.

    Parameters
    ----------
    estimator : MultimodalClassifier
        What is fitted.
    held_out : Subset
        Of a MultimodalDataset.
    classes, prior : ndarray of shape (C,)
        Of the outputs that are trained.
    evaluate : callable (estimator, X, read) -> (outputs (n, k), empty (n,))
        Reads the module of a fitted classifier.
    """

    def __init__(self, estimator, held_out: Subset, classes, prior, evaluate: Callable):
        self.estimator = estimator
        self.scorer = estimator.scoring
        if isinstance(self.scorer, str):
            self.scorer = get_scorer(self.scorer)
        self.X = self._table(held_out.dataset.rows.take(held_out.indices))
        self.classes, self.prior = classes, prior
        self.evaluate = evaluate

    def __call__(self, net: Net, logits: np.ndarray, targets: np.ndarray) -> float:
        """Return the score.

        Raises
        ------
        ValueError
            If the scorer gives anything but a finite number.
        """
        several = targets.ndim == 2
        y = targets.astype(np.int64) if several else self.classes[targets]
        value = self.scorer(self._so_far(net, logits), self.X, y)
        if not (isinstance(value, Real) and math.isfinite(value)):
            raise ValueError(
                "scoring must give a finite number for the held-out rows, got "
                f"{value!r:.200} in epoch {len(net.history)}."
            )
        return float(value)

    def _table(self, rows: Rows) -> pd.DataFrame:
        names = self.estimator._columns_by_modality
        cells = [(names[modality], cells) for modality, cells in rows.cells.items()]
        # Series first: arrays in a list of cells would become more dimensions.
        table = {name: pd.Series(column, dtype=object) for name, column in cells}
        return pd.DataFrame(table).set_axis(rows.index)

    def _so_far(self, net: Net, logits: np.ndarray):
        twin = copy(self.estimator)
        told = partial(operator.call, **(net.forward_params or {}))

        def evaluate(table, read: Callable = operator.call) -> tuple:
            if table is self.X and read is operator.call:
                return logits.astype(np.float64), np.zeros(len(table), dtype=bool)
            read = told if read is operator.call else read
            return self.evaluate(twin, table, read)

        def check_X(table, reset: bool) -> Rows:
            columns = twin._columns_by_modality
            return read_rows(table, image_root=twin.image_root, columns=columns)

        # On the twin alone, which no one keeps: its table has no further columns, and
        # its outputs are those that are trained.
        known = {"net_": net, "classes_": self.classes, "class_prior_": self.prior}
        vars(twin).update(known, _evaluate=evaluate, _check_X=check_X)
        return twin
