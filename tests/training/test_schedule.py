"""Learning rates as a function of steps, and of time where there is a limit."""

import numpy as np
import pytest
import torch
from points import Points, make

from robustmm.training.clock import Clock
from robustmm.training.schedule import (
    HEAD,
    LearningRate,
    learning_rate_callback,
    learning_rate_factor,
)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.5]),
        ("cosine", [0.5, 1, 1, 0.5]),
        ("polynomial", [0.5, 1, 1, 0.5**0.9]),
        ("held_polynomial", [0.1, 0.1, 1, 0.5**0.9]),
    ],
)
def test_schedules(schedule, expected):
    factor = learning_rate_factor(schedule, warmup=0.5, n_steps=4)
    np.testing.assert_allclose([factor(step) for step in range(4)], expected)


class Told(Clock):
    """A clock that says what it is told."""

    def __init__(self, fractions):
        super().__init__(1.0)
        self.fractions = iter(fractions)

    def seconds(self):
        return 0.0

    def fraction(self):
        return next(self.fractions)


def rates(clock, n_steps=6, **options):
    callbacks = [LearningRate(), learning_rate_callback("linear", 0.0, n_steps, clock)]
    net = make(callbacks=callbacks, lr=1.0, max_epochs=2, **options).fit(Points())
    return [batch["event_lr"] for row in net.history for batch in row["batches"]]


def test_without_a_limit_steps_count():
    expected = [1 - step / 6 for step in range(6)]
    np.testing.assert_allclose(rates(None), expected)
    np.testing.assert_allclose(rates(Clock(None)), expected)
    np.testing.assert_allclose(rates(Clock(1e6)), expected)


def test_the_rate_decays_with_the_time_where_that_is_ahead():
    clock = Told([0.0, 0.5, 0.1, 0.0, 0.9, 1.0, 1.0])
    expected = [1, 1 - 3 / 6, 1 - 2 / 6, 1 - 3 / 6, 1 - 5 / 6, 0]
    np.testing.assert_allclose(rates(clock), expected, atol=1e-12)


def test_the_rate_on_record_is_not_the_heads():
    groups = [("head.*", {"lr": 7.0, "name": HEAD})]
    frozen = make().module
    frozen.frozen.requires_grad_(True)
    found = rates(None, module=frozen, optimizer__param_groups=groups)
    assert found[0] == 1.0
    # Where nothing else is trained, there is no other.
    assert rates(None, optimizer__param_groups=groups)[0] == 7.0
    assert rates(None, optimizer=torch.optim.AdamW)[0] == 1.0
