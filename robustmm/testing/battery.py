"""The list of checks, and the two ways to run it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from types import ModuleType

from ..table import TableClassifier
from . import cells, composition, parameters, predictions, targets, training
from .subject import Subject


class Check:
    """One check of one estimator; call it with the estimator.

    Checks of the same estimator share fitted models.
    """

    def __init__(self, function: Callable[[Subject], None], subject: Subject):
        self.function = function
        self.subject = subject
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__

    def __repr__(self) -> str:
        return self.__name__

    def __call__(self, estimator: TableClassifier) -> None:
        # pytest hands over the estimator itself, with fitted models to share; another
        # one, as a clone, is tested for itself.
        known = estimator is self.subject.estimator
        self.function(self.subject if known else Subject(estimator))


def _checks_of(module: ModuleType) -> list[Callable]:
    functions = inspect.getmembers(module, inspect.isfunction)
    return [
        function
        for name, function in functions
        if name.startswith("check_") and function.__module__ == module.__name__
    ]


GROUPS = (parameters, cells, targets, predictions, training, composition)
CHECKS = [check for module in GROUPS for check in _checks_of(module)]


def checks_for(estimator: TableClassifier) -> list[Check]:
    """Return the checks that apply to an estimator.

    Those that need a parameter which its constructor does not take are left out.
    """
    if not isinstance(estimator, TableClassifier):
        raise TypeError(
            "estimator must be an instance of a subclass of BaseMultimodalClassifier, "
            f"or an AutoMultimodalClassifier, got {estimator!r}."
        )
    subject = Subject(estimator)
    applicable = [
        function
        for function in CHECKS
        if getattr(function, "applies", lambda subject: True)(subject)
    ]
    return [Check(function, subject) for function in applicable]


def check_estimator(
    estimator: TableClassifier, *, on_fail: str | None = "raise"
) -> list[dict]:
    """Check that a classifier of tables with holes keeps all promises of this package.

    Where scikit-learn's function of the same name feeds numbers, this one feeds tables
    with images, texts and missing cells. About fifty small models are fitted, so pass
    an instance that is fitted in a moment: an embedded backbone, one epoch, the CPU.

    Parameters
    ----------
    estimator : classifier
        An instance; it is cloned, not fitted.
    on_fail : {"raise", None}
        Raise the error of the first check that fails, or go on and report it.

    Returns
    -------
    list of dict
        One per check: ``"check_name"``, ``"status"`` (``"passed"`` or ``"failed"``)
        and ``"exception"``.

    Raises
    ------
    AssertionError
        With the rule that the estimator breaks.
    Exception
        Of another type, where the estimator itself raises one.

    Examples
    --------
    >>> from robustmm import LinearProbeClassifier
    >>> from robustmm.testing import check_estimator
    >>> class Probe(LinearProbeClassifier):
    ...     def __init__(self, backbone, C=1.0):
    ...         super().__init__(backbone, C=C, device="cpu")
    >>> check_estimator(Probe("robustmm/tiny-clip"))
    Traceback (most recent call last):
        ...
    AssertionError: Parameters must be named and have defaults, got ['backbone'].
    """
    if on_fail not in ("raise", None):
        raise ValueError(f'on_fail must be "raise" or None, got {on_fail!r}.')
    results = []
    for check in checks_for(estimator):
        error = None
        try:
            check(estimator)
        except Exception as exception:
            if on_fail == "raise":
                raise
            error = exception
        status = "passed" if error is None else "failed"
        results.append(
            {"check_name": repr(check), "status": status, "exception": error}
        )
    return results


def parametrize_with_checks(estimators: Iterable[TableClassifier]) -> Callable:
    """Return a pytest decorator that runs each check as a test of its own.

    Parameters
    ----------
    estimators : iterable of classifier
        Instances with small settings, as for :func:`check_estimator`.

    Returns
    -------
    decorator
        For a function with the parameters ``estimator`` and ``check``.

    Examples
    --------
    >>> from robustmm import LinearProbeClassifier
    >>> from robustmm.testing import parametrize_with_checks
    >>> @parametrize_with_checks([LinearProbeClassifier("robustmm/tiny-clip")])
    ... def test_promises(estimator, check):
    ...     check(estimator)
    """
    # Needed here alone: check_estimator works without it.
    import pytest

    pairs = [
        pytest.param(
            estimator, check, id=f"{type(estimator).__name__}-{check.__name__}"
        )
        for estimator in estimators
        for check in checks_for(estimator)
    ]
    return pytest.mark.parametrize(("estimator", "check"), pairs)
