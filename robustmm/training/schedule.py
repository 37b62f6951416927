"""Learning rates from step to step, as a function of steps and of time."""

from __future__ import annotations

import math
from collections.abc import Callable

from skorch.callbacks import Callback, LRScheduler
from torch.optim.lr_scheduler import LambdaLR

from .clock import Clock

# The name of the optimiser's group that has a rate of the head's own.
HEAD = "head"


class LearningRate(Callback):
    """Record the learning rate of each step, that of what is not the head."""

    def on_batch_end(self, net, training=False, **kwargs) -> None:
        """Before the schedule moves it on."""
        if training:
            groups = net.optimizer_.param_groups
            others = [group for group in groups if group.get("name") != HEAD]
            net.history.record_batch("event_lr", (others or groups)[0]["lr"])


def _constant(x: float) -> float:
    return 1.0


def _linear(x: float) -> float:
    return 1.0 - x


def _cosine(x: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * x))


def _polynomial(x: float) -> float:
    return (1.0 - x) ** 0.9


# Decay after the warm-up, as a function of the part of the training that is done.
SCHEDULES = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "polynomial": _polynomial,
    "held_polynomial": _polynomial,
}


def learning_rate_factor(
    schedule: str, warmup: float, n_steps: int
) -> Callable[[int], float]:
    """Return the function from optimiser step to the factor of the learning rate.

    The first ``warmup * n_steps`` steps rise linearly to 1, or stay at 0.1 for
    ``"held_polynomial"`` (the recipe of CMPT, section 4.2); then the schedule decays.
    """
    n_warm = round(warmup * n_steps)
    decay, held = SCHEDULES[schedule], schedule == "held_polynomial"

    def factor(step: int) -> float:
        if step < n_warm:
            return 0.1 if held else (step + 1) / n_warm
        done = (step - n_warm) / max(1, n_steps - n_warm)
        return decay(min(1.0, done))

    return factor


def learning_rate_callback(
    schedule: str, warmup: float, n_steps: int, clock: Clock | None = None
) -> LRScheduler:
    """Return skorch's scheduler callback for one of ``SCHEDULES``, step by step.

    With a limit of time, the training is as far as its steps or its time say,
    whichever is further: a rate that was not annealed would leave a training that is
    cut short where steps are large.
    """
    by_step = learning_rate_factor(schedule, warmup, n_steps)

    def factor(step: int) -> float:
        by_time = 0.0 if clock is None else clock.fraction()
        return by_step(max(step, int(by_time * n_steps)))

    # Without an event of its own: it knows the rate of the first group alone.
    options = {"step_every": "batch", "event_name": None}
    return LRScheduler(policy=LambdaLR, lr_lambda=factor, **options)
