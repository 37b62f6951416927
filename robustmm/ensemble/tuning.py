"""One threshold per label, for a score of the labels that they give."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    f1_score,
    fbeta_score,
    jaccard_score,
    precision_score,
    recall_score,
)

# Scores whose average over labels has a summand per label that no other label enters.
_PER_LABEL = (f1_score, fbeta_score, jaccard_score, precision_score, recall_score)
# Sweeps over all labels end when none gains any more; they gain in nearly all cases in
# the first two or three.
_MAX_SWEEPS = 10
# What a label must gain to be worth a threshold far from the usual one: more than the
# rounding of sums in another order.
_GAIN = 1e-12


def candidates(scores: np.ndarray, most: int, default: float) -> np.ndarray:
    """Return thresholds (T,) between the different scores of a label, and the default.

    Between any two of them all labels are the same, so that these are all there are; of
    too many, ``most`` are taken at even steps through the rows.
    """
    known = np.unique(scores)
    between = (known[:-1] + known[1:]) / 2
    # Below all, and above all.
    cuts = np.concatenate([known[:1], between, np.nextafter(known[-1:], np.inf)])
    if len(cuts) > most:
        cuts = cuts[np.linspace(0, len(cuts) - 1, most).round().astype(int)]
    return np.union1d(cuts, [default])


def score_per_label(scorer: Callable) -> Callable | None:
    """Return ``score(Y, P, sample_weight=None) -> (L,)``, or None if labels mix.

    Only for scikit-learn's own macro and weighted averages, which are known to be means
    over labels with weights that no prediction changes.
    """
    known = _known(scorer, ("macro", "weighted"))
    if known is None:
        return None
    sign, score = known
    score = partial(score, average=None)
    return lambda Y, P, **weights: sign * np.asarray(score(Y, P, **weights))


def score_of_counts(scorer: Callable) -> Callable | None:
    """Return ``score(Y, P, sample_weight=None)`` of a micro average, or None.

    It depends on how many entries are right, missed and wrong, and scikit-learn takes
    these as weights of three entries, a hundred times faster than as a table.
    """
    known = _known(scorer, ("micro",))
    if known is None:
        return None
    sign, score = known

    def of_counts(Y, P, sample_weight=1.0):
        kinds = (Y * P, Y * (1 - P), (1 - Y) * P)
        counts = [(kind.sum(axis=1) * sample_weight).sum() for kind in kinds]
        return sign * score([1, 1, 0], [1, 0, 1], sample_weight=counts)

    return of_counts


def _known(scorer: Callable, averages: tuple[str, ...]) -> tuple | None:
    """Return sign and function of a scorer of scikit-learn's, but for its average."""
    function = getattr(scorer, "_score_func", None)
    options = dict(getattr(scorer, "_kwargs", {}))
    average, some = options.pop("average", None), options.pop("labels", None)
    if function not in _PER_LABEL or average not in averages or some is not None:
        return None
    options.pop("pos_label", None)  # of a binary target, and None in the scorers
    # Its default means 0 with a warning, for each threshold that sets no label.
    if options.setdefault("zero_division", 0) == "warn":
        options["zero_division"] = 0
    return getattr(scorer, "_sign", 1), partial(function, **options)


def score_labels(scorer: Callable, X, Y, labels: np.ndarray, params: dict) -> float:
    """Return what a scorer says of labels (n, L) that an estimator would predict.

    Raises
    ------
    ValueError
        If it asks for anything but ``predict``, on which thresholds have no bearing, or
        is not finite.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            value = float(scorer(_Given(labels), X, Y, **params))
    except AttributeError as error:
        raise ValueError(
            "scoring must be a score of predicted labels, as thresholds change nothing "
            f"else, got {scorer!r}: {error}"
        ) from error
    if not np.isfinite(value):
        raise ValueError(
            f"scoring must give finite numbers, got {value} of {scorer!r}."
        )
    return value


class _Given(ClassifierMixin, BaseEstimator):
    """A fitted classifier that predicts what it was given."""

    def __init__(self, labels):
        self.labels = labels
        self.classes_ = np.arange(labels.shape[1])

    def predict(self, X) -> np.ndarray:
        return self.labels


def tune_each(
    score: Callable, Y: np.ndarray, scores: np.ndarray, cuts: list, default: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best thresholds (L,), and their scores (L,), label by label."""
    best = []
    for j, tried in enumerate(cuts):
        # All thresholds of a label at once, as if each gave a label of its own.
        labels = (scores[:, j, None] >= tried).astype(int)
        truth = np.broadcast_to(Y[:, j, None], labels.shape)
        # A single column would be a binary target.
        pairs = [np.column_stack([m, m[:, :1]]) for m in (truth, labels)]
        values = score(*pairs)[:-1]
        k = _nearest_best(values, tried, default)
        best.append((tried[k], values[k]))
    thresholds, values = np.array(best, dtype=np.float64).reshape(-1, 2).T
    return thresholds, values


def tune_together(
    score: Callable, Y: np.ndarray, scores: np.ndarray, cuts: list, default: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return thresholds (L,) that no single change betters, and the score (L,).

    ``score(labels)`` is of all labels together. Coordinate ascent to a local optimum,
    from the thresholds that are best for each label's F1, or the default ones if these
    are better: where only whole rows count, no single step from the latter may gain
    anything.
    """
    of_each = partial(f1_score, average=None, zero_division=0)
    thresholds, _ = tune_each(of_each, Y, scores, cuts, default)
    usual = np.full(len(cuts), default)
    first, second = (score((scores >= t).astype(int)) for t in (usual, thresholds))
    if first >= second:
        thresholds = usual
    labels = (scores >= thresholds).astype(int)
    best = score(labels)
    for _ in range(_MAX_SWEEPS):
        before = best
        for j, tried in enumerate(cuts):
            values = []
            for cut in tried:
                labels[:, j] = scores[:, j] >= cut
                values.append(score(labels))
            k = _nearest_best(np.array(values), tried, default)
            if values[k] > best + _GAIN:
                thresholds[j], best = tried[k], values[k]
            labels[:, j] = scores[:, j] >= thresholds[j]
        if best <= before:
            break
    return thresholds, np.full(len(cuts), best)


def _nearest_best(values: np.ndarray, tried: np.ndarray, default: float) -> int:
    """Where the best value is; of equal ones, where the threshold changes least."""
    good = np.flatnonzero(values >= values.max() - _GAIN)
    return int(good[np.abs(tried[good] - default).argmin()])
