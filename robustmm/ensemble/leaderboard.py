"""The table of what was tried: scores, costs, weights and reasons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..data.frame import PATTERNS
from .scores import HeldOut
from .trials import Trial

ENSEMBLE = "ensemble"
# In the order of the table; the patterns of what rows miss stand behind the score.
_TYPES = {
    "score": "float64",
    "complete": "float64",
    "calibration_error": "float64",
    "weight": "float64",
    "fit_seconds": "float64",
    "predict_ms": "float64",
    "n_trained": "Int64",
    "epochs": "Int64",
    "status": "object",
    "reason": "object",
}


def leaderboard_records(
    trials: Sequence[Trial],
    held: HeldOut,
    patterns: np.ndarray,
    weights: dict[str, float],
    ensemble: np.ndarray,
    names: Sequence[str] = PATTERNS[:3],
) -> list[dict]:
    """Return a row per trial and one of the ensemble, the best first.

    Parameters
    ----------
    trials : sequence of Trial
    held : HeldOut
        The n held-out rows.
    patterns : ndarray of shape (n,)
        What each of them misses.
    weights : dict from name to float
        Of the members.
    ensemble : ndarray of shape (n, C)
        What the ensemble says of them.
    names : sequence of str
        The patterns that have a score each.
    """
    n_rows = len(patterns)
    costs = _costs(trials, n_rows)
    told = held, patterns, names
    records = [_record(t, told, weights, costs) for t in trials]
    chosen = [t for t in trials if weights.get(t.name)]
    total = {
        "name": ENSEMBLE,
        **_scores(ensemble, *told),
        "weight": 1.0,
        "fit_seconds": sum(t.seconds for t in chosen),
        "predict_ms": _cost_together(chosen, costs, n_rows),
        "n_trained": sum(t.n_trained or 0 for t in chosen),
        "epochs": None,
        "status": ENSEMBLE,
        "reason": "",
    }
    # The ensemble stands before a member that is as good, and what has no score last.
    return sorted([total, *records], key=_place)


def _place(record: dict) -> float:
    score = record["score"]
    return np.inf if score is None or np.isnan(score) else -score


def _record(trial: Trial, told: tuple, weights: dict, costs: dict) -> dict:
    fitted = trial.outputs is not None
    scores = _scores(trial.outputs, *told) if fitted else {}
    weight = weights.get(trial.name, 0.0)
    took_part = trial.seconds > 0
    return {
        "name": trial.name,
        "score": trial.score,
        **scores,
        "weight": weight,
        "fit_seconds": trial.seconds if took_part else None,
        "predict_ms": costs[trial.candidate.family] if took_part else None,
        "n_trained": trial.n_trained,
        "epochs": trial.epochs,
        "status": "chosen" if weight else trial.status,
        "reason": trial.reason,
    }


def _scores(
    logits: np.ndarray, held: HeldOut, patterns: np.ndarray, names: Sequence[str]
) -> dict:
    return {
        "score": held.score(logits),
        **held.by_pattern(logits, patterns, names),
        "calibration_error": held.calibration_error(logits),
    }


def _costs(trials: Sequence[Trial], n_rows: int) -> dict[str, float]:
    """Return the milliseconds that a family needs for a row it has not seen.

    Those that differ in a penalty only find the first one's features in the cache.
    """
    costs: dict[str, float] = {}
    for trial in trials:
        spent = 1e3 * trial.predict_seconds / n_rows
        family = trial.candidate.family
        costs[family] = max(costs.get(family, 0.0), spent)
    return costs


def _cost_together(
    chosen: Sequence[Trial], costs: dict[str, float], n_rows: int
) -> float:
    """Return the milliseconds of all members; features are computed once for each."""
    total = 0.0
    for family in dict.fromkeys(trial.candidate.family for trial in chosen):
        spent = [t.predict_seconds for t in chosen if t.candidate.family == family]
        total += costs[family] + 1e3 * (sum(spent) - max(spent)) / n_rows
    return total


def leaderboard_frame(records: list[dict]) -> pd.DataFrame:
    """Return the table of records, with the candidates' names as index."""
    table = pd.DataFrame(records).set_index("name")
    patterns = [name for name in table if _is_pattern(name)] or PATTERNS[1:3]
    kinds = list(_TYPES.items())
    kinds[2:2] = [(name, "float64") for name in patterns]
    return table.reindex(columns=[name for name, _ in kinds]).astype(dict(kinds))


def _is_pattern(name) -> bool:
    return isinstance(name, str) and name.endswith("_missing")


def check_records(records) -> None:
    """Raise ValueError unless these are rows of a leaderboard."""
    kinds = (str, int, float, type(None))
    proper = isinstance(records, list) and all(
        isinstance(record, dict)
        and {"name", "score"} <= set(record)
        and all(_is_pattern(key) for key in set(record) - {"name", *_TYPES})
        and all(type(value) in kinds for value in record.values())
        for record in records
    )
    if not proper:
        raise ValueError("_leaderboard must be the rows of a leaderboard.")
    try:
        leaderboard_frame(records)
    except (TypeError, ValueError) as error:
        raise ValueError(f"_leaderboard must be a table: {error}") from error
