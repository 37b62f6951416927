"""Which rows are held out: as many of each class, and of each pattern in it."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import check_cv

from ..data.targets import Targets


def held_out_parts(
    targets: Targets,
    patterns: np.ndarray,
    fraction: float,
    cv,
    rng: np.random.RandomState,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (train, test) positions: one pair, or one for each part of ``cv``.

    Parameters
    ----------
    targets : Targets
        Labels of the n rows.
    patterns : ndarray of shape (n,)
        What each row misses.
    fraction : float
        The part to hold out, without ``cv``.
    cv : int, splitter or None
    rng : RandomState

    Raises
    ------
    ValueError
        If no class has two rows, so that there is nothing to hold out.
    """
    labels = _strata(targets)
    if cv is not None and not isinstance(cv, int | np.integer):
        places = np.zeros(len(labels))
        y = targets.original if not targets.multilabel else targets.encoded
        return list(check_cv(cv, y, classifier=True).split(places, y))
    order = _ordered(labels, patterns, rng)
    if len(order) == 0:
        raise ValueError(
            "Some class must have two rows that can be read, one to train on and one "
            f"to hold out, got {len(labels)} rows of {len(set(labels))} classes."
        )
    if cv is None:
        # Every k-th of the sorted rows: each stratum of any size gives its share.
        # With room for rounding: 50 times 0.2 may be less than 10.
        steps = rng.uniform() + np.arange(len(order) + 1) * fraction + 1e-9
        held = np.flatnonzero(np.diff(np.floor(steps)) > 0)
        held = held if len(held) else rng.randint(len(order), size=1)
        tests = [order[held]]
    else:
        tests = [order[k::cv] for k in range(min(cv, len(order)))]
    everything = np.arange(len(labels))
    return [_pair(everything, np.sort(test), labels) for test in tests]


def _strata(targets: Targets) -> np.ndarray:
    """Return the class of each row; of several labels the rarest, or -1 for none."""
    if not targets.multilabel:
        return targets.encoded
    counts = targets.encoded.sum(axis=0)
    rarity = np.where(targets.encoded > 0, counts, np.inf)
    return np.where(targets.encoded.any(axis=1), rarity.argmin(axis=1), -1)


def _ordered(labels: np.ndarray, patterns: np.ndarray, rng) -> np.ndarray:
    """Return rows by class and pattern, at random within; no row alone in its class."""
    counts = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    several = np.array([counts[label] > 1 for label in labels], dtype=bool)
    ranks = rng.permutation(len(labels))
    order = np.lexsort((ranks, patterns, labels))
    return order[several[order]]


def _pair(everything: np.ndarray, test: np.ndarray, labels: np.ndarray) -> tuple:
    """Return (train, test), after giving back a row of each class that lost all."""
    train = np.setdiff1d(everything, test)
    lost = np.setdiff1d(labels[test], labels[train])
    back = [test[labels[test] == label][0] for label in lost]
    return np.union1d(train, back).astype(int), np.setdiff1d(test, back)
