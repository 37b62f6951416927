"""One temperature per missing pattern, so that probabilities mean what they say.

Dividing logits by a temperature (Guo et al., ICML 2017) changes no order of classes. A
model is surer of itself on complete rows than on others, so each pattern has its own;
where a pattern has few rows, it stays near that of all rows.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from ..data.frame import MODALITIES, pattern_names
from .outputs import row_losses
from .scores import HeldOut

# Logarithms of temperatures that are tried: from a twentieth to twenty.
_BOUNDS = -3.0, 3.0
# A pattern's temperature counts as if it had been seen on so many rows before.
_PRIOR_ROWS = 20.0


def fit_temperatures(
    logits: np.ndarray,
    held: HeldOut,
    patterns: np.ndarray,
    modalities: tuple[str, ...] = MODALITIES,
) -> dict[str, float]:
    """Return a temperature for each pattern there is, and that of ``"all"`` rows.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
        Of held-out rows.
    held : HeldOut
        These rows.
    patterns : ndarray of shape (n,)
        What each row misses.
    modalities : tuple of str
        What rows have.
    """
    encoded, weights = held.targets.encoded, held.weights
    weights = np.ones(len(logits)) if weights is None else weights

    def loss(log_t: float, at: np.ndarray) -> float:
        losses = row_losses(logits[at] * np.exp(-log_t), encoded[at])
        return float(losses @ weights[at])

    everywhere = np.ones(len(logits), dtype=bool)
    pooled = _minimum(lambda t: loss(t, everywhere))
    temperatures = {"all": pooled}
    for name in pattern_names(modalities):
        at = patterns == name

        def penalised(t: float, at=at) -> float:
            return loss(t, at) + _PRIOR_ROWS / 2 * (t - pooled) ** 2

        temperatures[name] = _minimum(penalised) if at.any() else pooled
    return {name: float(np.exp(t)) for name, t in temperatures.items()}


def _minimum(loss) -> float:
    return float(minimize_scalar(loss, bounds=_BOUNDS, method="bounded").x)


def at_temperature(
    logits: np.ndarray, patterns: np.ndarray, temperatures: dict[str, float]
) -> np.ndarray:
    """Return logits (n, C) divided by the temperatures of their patterns (n,)."""
    return logits / np.array([temperatures[name] for name in patterns])[:, None]
