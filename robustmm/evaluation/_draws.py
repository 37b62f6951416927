"""What rows may lose: checked choices, turned into draws of a missing table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Real

import numpy as np
import pandas as pd

from ..checks import check_choice, check_number
from ..data.frame import MODALITIES
from ..missingness import missing_code, missing_table, scenarios_of
from ._runs import Draw


def holes(rate: float, scenario: str, modalities: tuple = MODALITIES) -> Draw:
    """Return the draw of a share of rows that lose a modality."""
    options = {"rate": rate, "scenario": scenario, "modalities": modalities}
    missing_table(0, **options)  # raises for what cannot be drawn
    return partial(missing_table, **options)


def holes_or_none(rate: float, scenario: str, modalities: tuple = MODALITIES) -> Draw:
    """Return the draw of a scenario, of which "complete" takes nothing away."""
    check_choice("scenario", scenario, (*scenarios_of(modalities), "complete"))
    # Also where nothing is drawn, so that a wrong rate is always told of.
    drawn = scenarios_of(modalities)[-1] if scenario == "complete" else scenario
    draw = holes(rate, drawn, modalities)
    return None if scenario == "complete" else draw


def training_holes(
    rate: float,
    scenario: str,
    train_rate,
    train_scenario: str | None,
    modalities: tuple = MODALITIES,
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
    return (train_rate, scenario), holes(train_rate, scenario, modalities)


def availability(
    name: str, shares: Sequence[float], modalities: tuple = MODALITIES
) -> Draw:
    """Return the draw that leaves shares of the modalities, such as (image, text)."""
    n = len(modalities)
    rule = (
        f"{name} must be ({', '.join(modalities)}), {'two' if n == 2 else n} shares in "
        f"[0, 1] that sum to at least {n - 1}"
    )
    listed = isinstance(shares, Sequence | np.ndarray) and not isinstance(shares, str)
    if not listed or len(shares) != n or n < 2:
        raise ValueError(f"{rule}, got {shares!r}.")
    for modality, share in zip(modalities, shares, strict=True):
        check_number(f"{name}: the share of {plural(modality)}", share, Real, 0, 1)
    if sum(shares) < n - 1 - 1e-9:
        raise ValueError(f"{rule}, got {shares!r}.")
    first, second, *more = map(float, shares)
    options = {"more": tuple(more), "modalities": modalities}
    return partial(availability_table, first=first, second=second, **options)


def plural(modality: str) -> str:
    """Say what rows have of a modality.

    Examples
    --------
    >>> plural("image"), plural("audio")
    ('images', 'audio')
    """
    return modality if modality == "audio" else f"{modality}s"


def availability_table(
    n: int,
    first: float,
    second: float,
    random_state=None,
    groups=None,
    *,
    more: tuple[float, ...] = (),
    modalities: tuple = MODALITIES,
) -> np.ndarray:
    """Draw codes as ``missing_table`` does, for shares of each modality."""
    shares = (first, second, *more)
    if groups is not None:
        members = pd.factorize(np.asarray(groups))[0]
        n_groups = int(members.max(initial=-1)) + 1
        options = {"more": more, "modalities": modalities}
        drawn = availability_table(n_groups, first, second, random_state, **options)
        return drawn[members]
    order = np.random.default_rng(random_state).permutation(n)
    codes, start = np.zeros(n, dtype=np.int64), 0
    # Disjoint parts of one permutation: no row loses two, which shares that sum to one
    # less than their number or more allow.
    for modality, share in zip(modalities, shares, strict=True):
        # A share such as 0.65 leaves a hair more or less than 0.35.
        stop = start + int(n * (1 - share) + 1e-9)
        codes[order[start:stop]] = missing_code(modality, modalities)
        start = stop
    return codes
