"""Logistic regression as a linear layer: solved, and its penalty chosen on held-out."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

# Inverse strengths of the penalty to choose from, the strongest first.
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Rows that the penalty is chosen on: with more, the choice would cost more than it
# brings.
_MOST_ROWS = 3000
_N_FOLDS = 3
# Above the best loss by less than this part is no difference.
_TOLERANCE = 0.01


def solve_probe(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    n_outputs: int,
    *,
    C: float,
    max_iter: int = 1000,
    absent: float = -1e3,
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients (n_outputs, d) and intercepts (n_outputs,) of raw features.

    Features are standardised for the solver, which is folded into what is returned.

    Parameters
    ----------
    features : ndarray of shape (n, d)
    targets : ndarray of int of shape (n,), or of zeros and ones of shape (n, n_outputs)
        Several labels have a regression each.
    weights : ndarray of shape (n,)
        A row of weight 2 is a row that stands twice.
    n_outputs : int
    C : float
        Inverse strength of the penalty on squared coefficients.
    max_iter : int
    absent : float
        Intercept of a class that no row has.

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [4.0], [5.0]])
    >>> coef, intercept = solve_probe(x, np.array([0, 0, 1, 1]), np.ones(4), 2, C=1.0)
    >>> (x @ coef.T + intercept).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    scaler = StandardScaler().fit(features, sample_weight=weights)
    inputs = scaler.transform(features)
    model = LogisticRegression(C=C, max_iter=max_iter)
    if targets.ndim == 2:
        solved = [_solve_label(model, inputs, y, weights) for y in targets.T]
        coef, intercept = map(np.stack, zip(*solved, strict=True))
    else:
        coef, intercept = _solve(model, inputs, targets, weights, n_outputs, absent)
    coef = coef / scaler.scale_
    return coef, intercept - coef @ scaler.mean_


def _solve(model, inputs, targets, weights, n_outputs: int, absent: float) -> tuple:
    """Return coefficients (C, d) and intercepts (C,) in the order of the classes."""
    classes = np.unique(targets)
    coef = np.zeros((n_outputs, inputs.shape[1]))
    intercept = np.full(n_outputs, absent)
    intercept[classes] = 0.0
    if len(classes) > 1:
        fitted = model.fit(inputs, targets, sample_weight=weights)
        # Two classes have one row of coefficients, the logit of the second; the first
        # stays at zero.
        places = classes if len(fitted.coef_) > 1 else classes[1:]
        coef[places], intercept[places] = fitted.coef_, fitted.intercept_
    return coef, intercept


def _solve_label(model, inputs, target: np.ndarray, weights: np.ndarray) -> tuple:
    """Return the coefficients (d,) and the intercept of one label."""
    if target.min() == target.max():  # no regression without both answers
        # Half a row more of each answer keeps the odds finite.
        odds = (target.sum() + 0.5) / ((1 - target).sum() + 0.5)
        return np.zeros(inputs.shape[1]), np.log(odds)
    fitted = model.fit(inputs, target > 0, sample_weight=weights)
    return fitted.coef_[0], fitted.intercept_[0]


def row_losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the loss of each row, (n,): cross-entropy, or its mean over the labels.

    Examples
    --------
    >>> row_losses(np.zeros((1, 4)), np.array([2])).round(3)
    array([1.386])
    """
    if targets.ndim == 2:
        return (np.logaddexp(0, logits) - targets * logits).mean(axis=1)
    # exp overflows from 710 on.
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1))
    return log_total - shifted[np.arange(len(targets)), targets]


def choose_penalty(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    n_outputs: int,
    grid: tuple[float, ...] = GRID,
    seed: int = 0,
) -> float:
    """Return the ``C`` of ``grid`` with the lowest loss in three folds.

    The smallest one prevails whose loss is within one standard error, or 1%, of the
    lowest. A class with a single row is in no fold but always learned.
    """
    rng = np.random.default_rng(seed)
    if len(features) > _MOST_ROWS:
        some = rng.choice(len(features), _MOST_ROWS, replace=False)
        features, targets, weights = features[some], targets[some], weights[some]
    folds = _deal(targets, rng)
    held = folds >= 0
    if not held.any():
        return min(grid)
    known, losses = (features, targets, weights, n_outputs), []
    for C in sorted(grid):
        losses.append(_losses_in_folds(*known, folds, C)[held])
        means = np.average(losses, axis=1, weights=weights[held])
        # From the strongest penalty on losses fall, then rise; and weaker ones take
        # longer to solve.
        if means[-1] > (1 + _TOLERANCE) * means.min():
            break
    return sorted(grid)[_first_near_best(np.stack(losses), weights[held])]


def _losses_in_folds(features, targets, weights, n_outputs, folds, C) -> np.ndarray:
    """Return the loss of each row, (n,), of a probe that did not see its fold."""
    losses = np.zeros(len(features))
    for fold in np.unique(folds[folds >= 0]):
        here, there = folds == fold, folds != fold
        if there.any():
            known = features[there], targets[there], weights[there], n_outputs
            coef, intercept = solve_probe(*known, C=C, absent=rare(there.sum()))
            logits = features[here] @ coef.T + intercept
            losses[here] = row_losses(logits, targets[here])
    return losses


def rare(n_rows: int) -> float:
    """Return the logit of a class that none of ``n_rows`` has, beside others at 0."""
    return -float(np.log1p(n_rows))


def _deal(targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal rows to folds, (n,), class by class; -1 for the only row of a class."""
    order, folds = rng.permutation(len(targets)), np.zeros(len(targets), dtype=int)
    if targets.ndim == 1:
        order = order[np.argsort(targets[order], kind="stable")]
    folds[order] = np.arange(len(targets)) % _N_FOLDS
    if targets.ndim == 1:
        folds[np.bincount(targets)[targets] == 1] = -1
    return folds


def _first_near_best(losses: np.ndarray, weights: np.ndarray) -> int:
    """Position of the first row of losses (C, n) that is as good as the best."""
    means = np.average(losses, axis=1, weights=weights)
    best = means.argmin()
    # Of the same rows, so their difference says more than each one's own error.
    gaps = losses - losses[best]
    spread = np.average((gaps - gaps.mean(axis=1)[:, None]) ** 2, axis=1)
    errors = np.sqrt(spread / losses.shape[1])
    near = (means - means[best] <= errors) | (means <= (1 + _TOLERANCE) * means[best])
    return int(near.argmax())
