"""Outputs for rows that the estimator which gives them was not fitted on."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
from sklearn import get_config
from sklearn.base import clone
from sklearn.model_selection import KFold, StratifiedKFold, check_cv
from sklearn.utils import Bunch, _safe_indexing
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params

MULTILABEL = "multilabel-indicator"


def split_rows(cv, shuffle: bool, random_state, y, params: dict) -> list[tuple]:
    """Return (rows to fit on, rows to read) per fold; each row is read once.

    Raises
    ------
    ValueError
        If a splitter of the caller's leaves a row out, or reads one twice.
    """
    if cv is None or not (hasattr(cv, "split") or np.iterable(cv)):
        n_splits = 5 if cv is None else cv
        stratified = type_of_target(y) in ("binary", "multiclass")
        kind = StratifiedKFold if stratified else KFold
        seed = random_state if shuffle else None
        cv = kind(n_splits, shuffle=shuffle, random_state=seed)
    # One of the caller's may look at X's length only, which every table has.
    n_rows = len(y)
    folds = list(check_cv(cv).split(np.empty((n_rows, 1)), y, **params))
    reads = np.bincount(np.concatenate([read for _, read in folds]), minlength=n_rows)
    if (reads != 1).any():
        row = int(np.flatnonzero(reads != 1)[0])
        raise ValueError(
            "cv must put each row into the test part of exactly one fold, got "
            f"{reads[row]} for row {row}."
        )
    return folds


def cross_fit(
    estimator, X, y, folds: list[tuple], read: Callable, fit_params: dict, n_jobs
) -> list:
    """Return ``read(estimator fitted on the fold, X of its other rows)`` per fold."""
    return Parallel(n_jobs=n_jobs)(
        delayed(_fit_and_read)(clone(estimator), X, y, *fold, read, fit_params)
        for fold in folds
    )


def _fit_and_read(estimator, X, y, rows, others, read: Callable, fit_params: dict):
    params = _check_method_params(X, fit_params, indices=rows)
    estimator.fit(_safe_indexing(X, rows), _safe_indexing(y, rows), **params)
    return read(estimator, _safe_indexing(X, others))


def route(owner, method: str, params: dict) -> tuple[dict, dict, dict]:
    """Return what ``fit``, ``split`` and a scorer get of a meta-estimator's params.

    Without scikit-learn's metadata routing, ``groups`` goes to the splitter and the
    rest to ``fit``.

    Raises
    ------
    TypeError
        If ``fit`` of the estimator does not take one of them.
    """
    if get_config()["enable_metadata_routing"]:
        routed = process_routing(owner, method, **params)
        parts = [routed.get(name, Bunch()) for name in ("estimator", "splitter")]
        scorer = routed.get("scorer", Bunch()).get("score", {})
        return parts[0].get("fit", {}), parts[1].get("split", {}), scorer
    fit = {name: value for name, value in params.items() if name != "groups"}
    unknown = [name for name in fit if not _takes(owner.estimator, name)]
    if unknown:
        raise TypeError(
            f"{method} must get parameters that fit of "
            f"{type(owner.estimator).__name__} takes, or groups, got {unknown}."
        )
    return fit, {k: v for k, v in params.items() if k == "groups"}, {}


def _takes(estimator, name: str) -> bool:
    known = inspect.signature(estimator.fit).parameters
    # Pipelines and frozen estimators take anything, and say themselves what is wrong.
    return name in known or any(p.kind is p.VAR_KEYWORD for p in known.values())
