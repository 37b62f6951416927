"""An estimator under test, small tables, and how a check says what is wrong."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone

from ..base import BaseMultimodalClassifier
from ..data.frame import MODALITIES
from ..datasets import make_clips, make_scenes
from ..table import TableClassifier

N_ROWS = 18  # six of each missing pattern


def table(
    n: int = N_ROWS,
    n_classes: int = 2,
    columns=("image", "text"),
    modalities: tuple[str, ...] = MODALITIES,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return scenes of which a third lost the image and a third the text, and labels.

    The index holds strings, so that a label is not mistaken for a position. With other
    modalities these are clips, or both, of which equal parts lost one.
    """
    X, y = make_scenes(n, n_classes=n_classes, random_state=0)
    if modalities != MODALITIES:
        clips, heard = make_clips(n, n_classes, random_state=0)
        # In the order of the scenes' classes, so that both tell of the same label.
        order = np.argsort(np.argsort(y, kind="stable"), kind="stable")
        order = np.argsort(heard, kind="stable").to_numpy()[order]
        X = X.assign(**{name: clips[name].array[order] for name in clips})
    # pandas' own strings would turn None into NaN.
    X = X[list(modalities)].astype(object)
    X.columns = list(columns)
    for place in range(len(modalities)):
        X.iloc[place :: len(modalities) + 1, place] = None
    X.index = [f"row{i}" for i in range(n)]
    return X, np.array(y)


@dataclass
class Observed:
    """A fit, and what could be seen of it from outside.

    Attributes
    ----------
    estimator, returned
        What was fitted, and what ``fit`` returned.
    X, y, weights
        The data after the fit.
    before : dict
        The attributes before the fit, the same objects.
    output : str
        What was written to standard output and standard error.
    torch_state, numpy_state
        Pairs: the global generators before and after.
    """

    estimator: TableClassifier
    returned: object
    X: pd.DataFrame
    y: np.ndarray
    weights: np.ndarray
    before: dict
    output: str
    torch_state: tuple
    numpy_state: tuple


class Subject:
    """An estimator under test, with the fitted models that checks share.

    Parameters
    ----------
    estimator : TableClassifier
        An instance with small settings. It is cloned, never fitted.
    """

    def __init__(self, estimator: TableClassifier):
        self.estimator = estimator

    def has(self, *names: str) -> bool:
        """Whether the constructor takes all these parameters."""
        return set(names) <= set(self.estimator.get_params(deep=False))

    def given(self, **params) -> dict:
        """Keep of these parameters those that the constructor takes."""
        return {name: value for name, value in params.items() if self.has(name)}

    def fresh(self, **params) -> TableClassifier:
        """Return an unfitted copy with other parameters, and always with a seed."""
        # Fits are compared with each other: without a seed none equals another.
        unseeded = self.has("random_state") and self.estimator.random_state is None
        seed = {"random_state": 0} if unseeded else {}
        return clone(self.estimator).set_params(**seed | params)

    def table(self, n: int = N_ROWS, n_classes: int = 2):
        """Return :func:`table` under the column names that the estimator reads."""
        return table(n, n_classes, list(self.columns.values()), self.modalities)

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the estimator reads of a row, in order."""
        return self.estimator._modalities

    @property
    def columns(self) -> dict[str, str]:
        """Where it reads them from."""
        return self.estimator._columns_by_modality

    @cached_property
    def fitted(self) -> TableClassifier:
        """A copy fitted on ``table()``; checks leave it as it is."""
        return self.fresh().fit(*self.table())

    @cached_property
    def observed(self) -> Observed:
        """A second fit on the same table, watched from outside.

        The first one has filled the caches.
        """
        _ = self.fitted
        X, y = self.table()
        # Weights that change nothing, to see that nothing changes them.
        estimator, weights = self.fresh(), np.ones(len(X))
        before = dict(vars(estimator))
        states = torch.get_rng_state(), _numpy_state()
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            returned = estimator.fit(X, y, sample_weight=weights)
        return Observed(
            estimator,
            returned,
            X,
            y,
            weights,
            before,
            output.getvalue(),
            (states[0], torch.get_rng_state()),
            (states[1], _numpy_state()),
        )


def _numpy_state() -> np.ndarray:
    """All of it: a single draw moves the position and leaves the 624 words alone."""
    return np.hstack(np.random.get_state()[1:])


def applies_if(condition: Callable[[Subject], bool]) -> Callable:
    """Mark a check that says nothing about subjects for which this is false."""

    def mark(check: Callable) -> Callable:
        check.applies = condition
        return check

    return mark


def has_net(subject: Subject) -> bool:
    """Whether the subject is one network and its training, not several classifiers."""
    return isinstance(subject.estimator, BaseMultimodalClassifier)


def needs(*parameters: str) -> Callable:
    """Mark a check that sets these parameters."""
    return applies_if(lambda subject: subject.has(*parameters))


def require(condition, rule: str) -> None:
    """Raise AssertionError with the rule that was broken."""
    if not condition:
        raise AssertionError(rule)


def require_equal(values, expected, rule: str, atol: float = 0.0) -> None:
    """Raise AssertionError unless two arrays agree, exactly or within ``atol``."""
    try:
        if atol:
            np.testing.assert_allclose(values, expected, rtol=0, atol=atol)
        else:
            np.testing.assert_array_equal(values, expected)
    except AssertionError as error:
        raise AssertionError(f"{rule}: {error}") from None


@contextmanager
def must_raise(kinds, message: str, rule: str) -> Iterator[None]:
    """Raise AssertionError unless the block raises one of ``kinds`` that says so.

    ``message`` is a regular expression that is searched for in the error.
    """
    try:
        yield
    except kinds as error:
        found = re.search(message, str(error), re.DOTALL)
        require(found, f"{rule}. The message must match {message!r}, got {error!r}.")
    except Exception as error:
        raise AssertionError(f"{rule}, got {type(error).__name__}: {error}.") from error
    else:
        raise AssertionError(f"{rule}, but nothing was raised.")


@contextmanager
def must_warn(rule: str, *messages: str) -> Iterator[None]:
    """Raise AssertionError unless the block warns of each of these once."""
    with warnings.catch_warnings(record=True) as caught:
        # Or a warning that was shown before would not be recorded.
        warnings.simplefilter("always")
        yield
    found = [str(warning.message) for warning in caught]
    for message in messages:
        count = sum(bool(re.search(message, text)) for text in found)
        require(count == 1, f"{rule}. One warning must match {message!r}, got {found}.")
