"""One candidate on held-out rows: fitted in time, with weights, and what came of it."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter
from skorch.callbacks import Callback

from ..data.targets import Targets
from ..training.net import EarlyStop
from .candidates import Candidate
from .outputs import log_outputs
from .scores import HeldOut
from .splits import held_out_parts

# What may be planned of the time that is left; the rest is for what was not foreseen.
PLANNED = 0.85


class Clock:
    """How much of a time limit is left, in seconds."""

    def __init__(self, limit: float | None):
        self.limit = limit
        self.start = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since it was started."""
        return time.perf_counter() - self.start

    @property
    def left(self) -> float:
        """Seconds that are left; infinity without a limit."""
        return np.inf if self.limit is None else self.limit - self.elapsed


class Deadline(Callback):
    """End a training in good order before its time is over.

    Parameters
    ----------
    seconds : float
        From the beginning of the training.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds

    def on_train_begin(self, net, X=None, y=None, **kwargs) -> None:
        """Look at the clock."""
        self.end_ = time.perf_counter() + self.seconds

    def on_batch_end(self, net, training=False, **kwargs) -> None:
        """Stop, if it is too late."""
        if training and time.perf_counter() > self.end_:
            raise EarlyStop


@dataclass(eq=False)
class Trial:
    """A candidate, and what came of it.

    Attributes
    ----------
    status : {"waiting", "fitted", "dropped", "skipped", "failed"}
    reason : str
        Why it was dropped or skipped, the error, or what became of the last fit.
    fitted : list of classifier
        One for each part of rows that was held out.
    outputs : ndarray of shape (n_held_out, C)
        Logarithms of what they say of these rows.
    score, key
        Of these outputs, and what trials are compared by.
    epochs, seconds, predict_seconds
        Of the last fit: passes, seconds of the training and of the prediction.
    """

    candidate: Candidate
    status: str = "waiting"
    reason: str = ""
    fitted: list = field(default_factory=list)
    outputs: np.ndarray | None = None
    score: float = np.nan
    key: tuple = ()
    epochs: int | None = None
    seconds: float = 0.0
    predict_seconds: float = 0.0
    n_trained: int | None = None

    @property
    def name(self) -> str:
        """The candidate's."""
        return self.candidate.name

    @property
    def seconds_per_epoch(self) -> float:
        """Of a fit and its share of the predictions."""
        return (self.seconds + self.predict_seconds) / max(1, self.epochs or 1)

    def note(self, reason: str) -> None:
        """Add to what is said of it."""
        self.reason = f"{self.reason}; {reason}" if self.reason else reason

    def end(self, status: str, reason: str) -> None:
        """Leave it, and let go of what was fitted."""
        self.status, self.reason = status, reason
        self.fitted, self.outputs = [], None


@dataclass
class Bench:
    """The rows that candidates are tried on.

    Attributes
    ----------
    X : DataFrame of shape (n, ...)
        All rows that can be learned.
    targets : Targets
        Their labels.
    patterns : ndarray of shape (n,)
        What each of them misses.
    weights : ndarray of shape (n,), or None
        For ``fit``.
    in_scores : ndarray of shape (n,), or None
        For scores: with the weights of classes.
    seed : int
        For candidates that have none of their own, and for what is held out.
    parts : list of (train, test)
        Positions of the rows to train on and to predict.
    messages : dict from str to category
        Warnings of all fits, each once.
    """

    X: pd.DataFrame
    targets: Targets
    patterns: np.ndarray
    weights: np.ndarray | None
    in_scores: np.ndarray | None
    seed: int
    parts: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    messages: dict = field(default_factory=dict)

    def split(self, fraction: float, cv) -> None:
        """Choose what is held out."""
        rng = np.random.RandomState(self.seed)
        self.parts = held_out_parts(self.targets, self.patterns, fraction, cv, rng)

    @property
    def held_out(self) -> np.ndarray:
        """Positions of all rows that are held out, part after part."""
        return np.concatenate([test for _, test in self.parts])

    def scored(self, scoring) -> HeldOut:
        """Return the held-out rows as those that predictions of them are scored on."""
        at = self.held_out
        weights = None if self.in_scores is None else self.in_scores[at]
        return HeldOut(self.X.iloc[at], self.targets.take(at), weights, scoring)

    def run(self, trial: Trial, epochs: int | None, seconds: float) -> None:
        """Fit and predict all parts; the trial changes only if nothing is raised."""
        with self.recorded():
            self._run(trial, epochs, seconds)

    def _run(self, trial: Trial, epochs: int | None, seconds: float) -> None:
        fitted, outputs, spent, predicting = [], [], 0.0, 0.0
        for train, test in self.parts:
            start = time.perf_counter()
            left = (seconds - spent - predicting) / (len(self.parts) - len(fitted))
            fitted.append(self.fit(trial.candidate, train, epochs, left))
            spent += time.perf_counter() - start
            start = time.perf_counter()
            known = self.targets.classes, self.targets.multilabel
            outputs.append(log_outputs(fitted[-1], self.X.iloc[test], *known))
            predicting += time.perf_counter() - start
        trial.fitted, trial.outputs = fitted, np.concatenate(outputs)
        trial.epochs, trial.seconds = epochs, spent
        trial.predict_seconds = predicting
        trial.n_trained = getattr(fitted[-1], "n_trainable_parameters_", None)

    def fit(
        self, candidate: Candidate, rows: np.ndarray, epochs: int | None, seconds: float
    ) -> BaseEstimator:
        """Return a copy of a candidate, fitted on the rows at some positions."""
        estimator = clone(candidate.estimator)
        _seed(estimator, self.seed)
        if epochs is not None:
            estimator.set_params(max_epochs=epochs)
        undo = _limit(estimator, seconds)
        params = {}
        if self.weights is not None:
            params = _weights_for(estimator, self.weights[rows])
        estimator.fit(self.X.iloc[rows], self.targets.original[rows], **params)
        return estimator.set_params(**undo)

    def recorded(self):
        """Return a context that keeps warnings, to be told once at the end."""
        return _Recorded(self.messages)


class _Recorded:
    """Collect the messages of warnings by text."""

    def __init__(self, messages: dict):
        self.messages = messages
        self.caught = warnings.catch_warnings(record=True)

    def __enter__(self) -> None:
        self.log = self.caught.__enter__()
        warnings.simplefilter("always")

    def __exit__(self, *error) -> None:
        self.caught.__exit__(*error)
        for warning in self.log:
            # Those of libraries to their callers are not for who calls us.
            if not issubclass(warning.category, DeprecationWarning):
                self.messages.setdefault(str(warning.message), warning.category)


def _seed(estimator: BaseEstimator, seed: int) -> None:
    """Give a seed to all that have a random_state of None."""
    unseeded = {
        name: seed
        for name, value in estimator.get_params(deep=True).items()
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    }
    estimator.set_params(**unseeded)


def _limit(estimator: BaseEstimator, seconds: float) -> dict:
    """Let a training end in time, and return the parameters to set back after it."""
    params = estimator.get_params(deep=False)
    if not np.isfinite(seconds):
        return {}
    seconds = max(seconds, 0.01)
    # Where a fit may go on after a kill, it refuses a limit of its own.
    if "time_limit" in params and params.get("checkpoint_dir") is None:
        own = params["time_limit"]
        estimator.set_params(time_limit=seconds if own is None else min(own, seconds))
        return {"time_limit": own}
    if "net_params" in params:
        given = params["net_params"] or {}
        callbacks = [*given.get("callbacks", []), Deadline(seconds)]
        estimator.set_params(net_params={**given, "callbacks": callbacks})
        return {"net_params": params["net_params"]}
    return {}


def _weights_for(estimator: BaseEstimator, weights: np.ndarray) -> dict:
    """Return weights as the parameter of ``fit`` that an estimator has for them."""
    if isinstance(estimator, Pipeline):
        step, last = estimator.steps[-1]
        inside = _weights_for(last, weights)
        return {f"{step}__{name}": value for name, value in inside.items()}
    if has_fit_parameter(estimator, "sample_weight"):
        return {"sample_weight": weights}
    warnings.warn(
        f"{type(estimator).__name__} takes no sample_weight and is fitted without.",
        UserWarning,
        stacklevel=2,
    )
    return {}


def varied(weights: np.ndarray) -> np.ndarray | None:
    """Return weights (n,) with mean 1, or None if they are all the same."""
    return None if (weights == weights[0]).all() else weights / weights.mean()
