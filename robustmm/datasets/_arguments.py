"""Arguments that all synthetic data sets have: numbers of rows, and seeds."""

import numpy as np


def generator(random_state) -> np.random.Generator:
    """Return the generator that a ``random_state`` stands for."""
    if isinstance(random_state, np.random.RandomState):
        random_state = random_state.randint(2**31)
    return np.random.default_rng(random_state)


def check_int(name: str, value, low: int, high: float) -> None:
    """Raise unless ``value`` is an integer from ``low`` to ``high``."""
    if (
        not isinstance(value, int | np.integer)
        or isinstance(value, bool)
        or not low <= value <= high
    ):
        limits = f">= {low}" if high == np.inf else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be an integer {limits}, got {value!r}.")
