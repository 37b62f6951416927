"""What rows may lose: checked choices, turned into draws of a missing table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Real

import numpy as np
import pandas as pd

from ..checks import check_choice, check_number
from ..missingness import SCENARIOS, missing_table
from ._runs import Draw


def holes(rate: float, scenario: str) -> Draw:
    """Return the draw of a share of rows that lose a modality."""
    missing_table(0, rate, scenario)  # raises for what cannot be drawn
    return partial(missing_table, rate=rate, scenario=scenario)


def holes_or_none(rate: float, scenario: str) -> Draw:
    """Return the draw of a scenario, of which "complete" takes nothing away."""
    check_choice("scenario", scenario, (*SCENARIOS, "complete"))
    # Also where nothing is drawn, so that a wrong rate is always told of.
    draw = holes(rate, "both" if scenario == "complete" else scenario)
    return None if scenario == "complete" else draw


def training_holes(
    rate: float, scenario: str, train_rate, train_scenario: str | None
) -> tuple[tuple, Draw]:
    """Return what training rows lose, and a key under which curves share a fit."""
    if train_rate is None:
        if train_scenario is not None:
            raise ValueError(
                "train_scenario needs a train_rate, got train_rate=None and "
                f"train_scenario={train_scenario!r}."
            )
        return (), None
    if isinstance(train_rate, str):
        if train_rate != "same":
            raise ValueError(
                'train_rate must be None, "same" or a number in [0, 1], got '
                f"{train_rate!r}."
            )
        train_rate = rate
    scenario = train_scenario or scenario
    return (train_rate, scenario), holes(train_rate, scenario)


def availability(name: str, pair: Sequence[float]) -> Draw:
    """Return the draw that leaves shares (image, text) of the modalities."""
    rule = f"{name} must be (image, text), two shares in [0, 1] that sum to at least 1"
    listed = isinstance(pair, Sequence | np.ndarray) and not isinstance(pair, str)
    if not listed or len(pair) != 2:
        raise ValueError(f"{rule}, got {pair!r}.")
    image, text = pair
    check_number(f"{name}: the share of images", image, Real, 0, 1)
    check_number(f"{name}: the share of texts", text, Real, 0, 1)
    if image + text < 1 - 1e-9:
        raise ValueError(f"{rule}, got {pair!r}.")
    return partial(availability_table, image=float(image), text=float(text))


def availability_table(
    n: int, image: float, text: float, random_state=None, groups=None
) -> np.ndarray:
    """Draw codes as ``missing_table`` does, for shares of each modality."""
    if groups is not None:
        members = pd.factorize(np.asarray(groups))[0]
        n_groups = int(members.max(initial=-1)) + 1
        return availability_table(n_groups, image, text, random_state)[members]
    # A share such as 0.65 leaves a hair more or less than 0.35.
    lost = [int(n * (1 - share) + 1e-9) for share in (image, text)]
    order = np.random.default_rng(random_state).permutation(n)
    codes = np.zeros(n, dtype=np.int64)
    # Disjoint parts of one permutation: no row loses both, which shares that sum to 1
    # or more allow.
    codes[order[: lost[0]]] = 2
    codes[order[lost[0] : sum(lost)]] = 1
    return codes
