"""How much of a time limit is spent."""

import time

import pytest

from robustmm.training.clock import Clock


@pytest.fixture
def now(monkeypatch):
    class Now:
        seconds = 100.0

    monkeypatch.setattr(time, "monotonic", lambda: Now.seconds)
    return Now


def test_it_counts_from_when_it_was_made(now):
    clock = Clock(8.0)
    assert clock.seconds() == 0.0
    now.seconds += 5
    assert clock.seconds() == 5.0
    assert not clock.is_over()
    assert not clock.is_over(ahead=2.5)
    assert clock.is_over(ahead=3.0)
    now.seconds += 3
    assert clock.is_over()


def test_without_a_limit_it_is_never_over(now):
    clock = Clock(None)
    now.seconds += 1e9
    assert not clock.is_over(ahead=1e9)
    assert clock.fraction() == 0.0


def test_the_fraction_is_of_what_was_left_when_first_asked(now):
    clock = Clock(10.0)
    now.seconds += 6  # what is decoded before the first step counts for no step
    assert clock.fraction() == 0.0
    now.seconds += 1
    assert clock.fraction() == 0.25
    now.seconds += 9
    assert clock.fraction() == 1.0


def test_a_step_that_is_made_in_spite_of_all_is_the_first(now):
    clock = Clock(1.0)
    now.seconds += 2
    assert clock.fraction() == 0.0
    now.seconds += 2
    assert clock.fraction() == 0.0
