"""Checks of the constructor, and of what ``fit`` does to parameters."""

import inspect
from difflib import get_close_matches
from numbers import Number

import numpy as np
from sklearn.base import clone

from ..parameters import documented
from .subject import Subject, applies_if, must_raise, require

# A value out of range for each parameter of the base class that has a range.
OUT_OF_RANGE = {
    "max_epochs": 0,
    "batch_size": 2.5,
    "lr": -1.0,
    "weight_decay": -0.5,
    "warmup": 1.5,
    "lr_schedule": "step",
    "on_bad_image": "skip",
    "validation_fraction": 1.0,
    "n_iter_no_change": 0,
    "device": "tpu",
    "precision": "int4",
    "cache": "no/such/folder",
    "max_text_length": 0,
}


def check_constructor_has_defaults(subject: Subject) -> None:
    """``cls()`` works, and the constructor names each parameter."""
    cls = type(subject.estimator)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    variadic = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    wrong = [p.name for p in parameters if p.kind in variadic or p.default is p.empty]
    require(not wrong, f"Parameters must be named and have defaults, got {wrong}.")
    cls()


def check_parameters_are_documented(subject: Subject) -> None:
    """Each parameter has an entry of its own, and no two names are nearly the same.

    A name that is misspelt where a field is declared again is a new parameter, which
    nothing reads.
    """
    cls = type(subject.estimator)
    names = list(subject.estimator.get_params(deep=False))
    for name in names:
        near = get_close_matches(name, set(names) - {name}, n=1, cutoff=0.9)
        require(not near, f"Parameters must have distinct names, got {name!r}, {near}.")
    if "__dataclass_fields__" not in vars(cls):
        return  # a constructor written by hand may be documented anywhere
    lacking = sorted(set(names) - set(documented(cls)))
    require(not lacking, f"Parameters must be documented, each alone, not {lacking}.")


def check_constructor_only_assigns(subject: Subject) -> None:
    """Each argument becomes the attribute of its name, the same object."""
    cls = type(subject.estimator)
    for make in (object, tuple):  # one is true, one is false
        values = {name: make() for name in subject.estimator.get_params(deep=False)}
        try:
            attributes = vars(cls(**values))
        except Exception as error:
            raise AssertionError(
                f"The constructor must not validate, leave that to fit; got {error!r}."
            ) from error
        changed = [k for k, v in values.items() if attributes.get(k) is not v]
        require(not changed, f"The constructor must only assign, it changed {changed}.")
    fitted = [name for name in attributes if name.endswith("_")]
    require(not fitted, f"The constructor must not set fitted attributes: {fitted}.")


def check_clone(subject: Subject) -> None:
    """A clone has the same parameters and is not fitted."""
    copy = clone(subject.fitted)
    require(
        # By repr: the == of a parameter that is an array is no truth value.
        repr(copy.get_params()) == repr(subject.fitted.get_params()),
        "clone must keep the parameters.",
    )
    fitted = [name for name in vars(copy) if name.endswith("_")]
    require(not fitted, f"clone must drop what was fitted, it kept {fitted}.")


def check_fit_leaves_parameters_alone(subject: Subject) -> None:
    """``fit`` returns the estimator and sets nothing public but fitted attributes."""
    seen = subject.observed
    require(seen.returned is seen.estimator, "fit must return the estimator.")
    after = vars(seen.estimator)
    changed = [k for k, v in seen.before.items() if after.get(k, ...) is not v]
    require(not changed, f"fit must not change parameters, it changed {changed}.")
    added = set(after) - set(seen.before)
    wrong = sorted(k for k in added if not k.startswith("_") and not k.endswith("_"))
    require(not wrong, f"What fit sets must end in an underscore, got {wrong}.")


def check_bad_parameters_are_named(subject: Subject) -> None:
    """A parameter out of range is an error with its name, its rule and its value."""
    X, y = subject.table(6)
    for name, value in subject.given(**OUT_OF_RANGE).items():
        shown = str(value) if isinstance(value, Number) else repr(value)
        rule = f"fit must refuse {name}={value!r}"
        with must_raise((ValueError, TypeError), f"{name}.*{shown}", rule):
            subject.fresh(**{name: value}).fit(X, y)


def _rates(subject: Subject) -> list[str]:
    """The parameters that are numbers, and not counts."""
    given = subject.estimator.get_params(deep=False).items()
    return [name for name, value in given if isinstance(value, float)]


@applies_if(_rates)
def check_numbers_must_be_finite(subject: Subject) -> None:
    """NaN is an error with the name of the parameter; infinity too, or it works."""
    X, y = subject.table(6)
    for name in _rates(subject):
        rule = f"fit must refuse {name}=nan"
        with must_raise((ValueError, TypeError), f"{name}.*nan", rule):
            subject.fresh(**{name: np.nan}).fit(X, y)
        try:
            proba = subject.fresh(**{name: np.inf}).fit(X, y).predict_proba(X)
        except ValueError as error:
            rule = f"The error for {name}=inf must name it, got {error!r}."
            require(name in str(error), rule)
        else:
            rule = f"With {name}=inf there must be an error or finite probabilities."
            require(np.isfinite(proba).all(), rule)
