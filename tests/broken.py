"""Classifiers that are broken in one way each, and the check that must find it."""

import inspect

import pytest

from robustmm.testing.battery import checks_for


class Broken(dict):
    """Broken classifiers by the name of the check that must refuse them."""

    def by(self, *names):
        """Register a classifier for checks of these names."""

        def register(cls):
            self.update(dict.fromkeys(names, cls))
            return cls

        return register


def checks_in(module) -> set[str]:
    """The names of the checks that a module defines."""
    return {name for name, _ in inspect.getmembers(module) if name.startswith("check_")}


def assert_found(name, cls) -> None:
    """The check refuses an instance, in words if the instance itself does not raise."""
    estimator = cls("robustmm/tiny-clip")
    (check,) = [c for c in checks_for(estimator) if c.__name__ == name]
    with pytest.raises((AssertionError, ValueError)) as caught:
        check(estimator)
    assert str(caught.value)
