"""From candidates to members: the race, the choice, the temperatures, the last fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.frame import pattern_names
from ..data.targets import log_odds_of
from .calibration import at_temperature, fit_temperatures
from .candidates import Candidate
from .leaderboard import leaderboard_records
from .outputs import combine
from .rungs import Race
from .selection import select_greedily
from .trials import PLANNED, Bench, Clock, Trial

# Of two fits of as many epochs, the longer one: caches are full, but rows are more.
_AGAIN = 1.1


@dataclass(frozen=True)
class Found:
    """What a search leaves.

    Attributes
    ----------
    members : list of (str, classifier)
        Fitted.
    weights : ndarray of shape (n_members,)
        With the sum 1.
    temperatures : dict from pattern to float
    records : list of dict
        The rows of the leaderboard.
    """

    members: list
    weights: np.ndarray
    temperatures: dict[str, float]
    records: list[dict]


def search(
    bench: Bench,
    candidates: Sequence[Candidate],
    options,
    clock: Clock,
    tell: Callable,
) -> Found:
    """Try all candidates, choose members and fit them again.

    Parameters
    ----------
    bench : Bench
        The rows, of which some are held out.
    candidates : sequence of Candidate
    options : AutoMultimodalClassifier
        Its ``scoring``, ``ensemble_size``, ``calibrate`` and ``refit``.
    clock : Clock
    tell : callable (str, best trial or None, steps left) -> None

    Raises
    ------
    ValueError
        If every candidate fails, with the reason of each.
    """
    held = bench.scored(options.scoring)
    floor = held.score(_prior(bench, len(bench.held_out)))
    trials = Race(bench, candidates, held, floor, clock, options.refit, tell).run()
    done = [trial for trial in trials if trial.outputs is not None]
    if not done:
        reasons = "; ".join(f"{t.name}: {t.reason}" for t in trials)
        raise ValueError(f"A candidate must be fitted without an error, got {reasons}.")
    outputs = np.stack([trial.outputs for trial in done])
    counts = select_greedily(outputs, held.gain, options.ensemble_size)
    shares = (counts / counts.sum()).tolist()
    weights = {t.name: w for t, w in zip(done, shares, strict=True) if w}
    mixed = combine(outputs, counts, bench.targets.multilabel)
    patterns = bench.patterns[bench.held_out]
    modalities = options._modalities
    temperatures = dict.fromkeys(("all", *pattern_names(modalities)), 1.0)
    if options.calibrate:
        temperatures = fit_temperatures(mixed, held, patterns, modalities)
    mixed = at_temperature(mixed, patterns, temperatures)
    chosen = [trial for trial in done if trial.name in weights]
    chosen.sort(key=lambda trial: -weights[trial.name])
    members = _members(chosen, weights, bench, options.refit, clock, tell)
    names = pattern_names(modalities)[:-1]
    records = leaderboard_records(trials, held, patterns, weights, mixed, names)
    return Found(*members, temperatures, records)


def _prior(bench: Bench, n_rows: int) -> np.ndarray:
    """Return the logits of the class frequencies for so many rows."""
    weights = np.ones(len(bench.X)) if bench.in_scores is None else bench.in_scores
    prior = bench.targets.prior(weights)
    return np.tile(log_odds_of(prior, bench.targets.multilabel), (n_rows, 1))


def _members(
    chosen: Sequence[Trial],
    weights: dict[str, float],
    bench: Bench,
    refit: bool,
    clock: Clock,
    tell: Callable,
) -> tuple[list, np.ndarray]:
    """Return fitted members and weights; the heaviest are fitted again first."""
    members, shares = [], []
    for i, trial in enumerate(chosen):
        again = None
        if refit:
            tell(f"{trial.name} (all rows)", chosen[0], len(chosen) - i)
            again = _fit_again(trial, bench, clock)
        if again is not None:
            fitted, names = [again], [trial.name]
        else:
            # What was compared; with several parts, their mean.
            fitted = trial.fitted
            parts = [f" (part {k + 1})" for k in range(len(fitted))]
            names = [trial.name + p if len(parts) > 1 else trial.name for p in parts]
        members += zip(names, fitted, strict=True)
        shares += [weights[trial.name] / len(fitted)] * len(fitted)
    return members, np.array(shares)


def _fit_again(trial: Trial, bench: Bench, clock: Clock):
    """Return a fit on all rows, or None where there is no time or it fails."""
    n_train = np.mean([len(train) for train, _ in bench.parts])
    longer = _AGAIN * len(bench.X) / n_train
    if longer * trial.seconds / len(bench.parts) > PLANNED * clock.left:
        trial.note("first fit kept: time")
        return None
    try:
        with bench.recorded():
            rows = np.arange(len(bench.X))
            fitted = bench.fit(trial.candidate, rows, trial.epochs, clock.left)
    except Exception as error:  # whatever a candidate may raise
        trial.note(f"first fit kept: {type(error).__name__}: {error}")
        return None
    if clock.left <= 0:
        # Cut short; the first one was not.
        trial.note("first fit kept: time")
        return None
    return fitted
