"""How a checkpoint wants its sound: its own settings over the architecture's."""

from __future__ import annotations

import math

from .model_config import model_config

# AST's filter bank is defined at this rate: windows of 400 samples, every 160.
_RATE = 16_000
# AudioSet's, of the values of the bank.
_DEFAULTS = {
    "sampling_rate": _RATE,
    "do_normalize": True,
    "mean": -4.2677393,
    "std": 4.5689974,
}


def audio_config(config: dict, stored: dict) -> dict:
    """Return complete audio settings in the words of ``preprocessor_config.json``.

    Parameters
    ----------
    config : dict
        The model's ``config.json``.
    stored : dict
        What its ``preprocessor_config.json`` says; may be partial or empty. A null
        counts as left out.

    Returns
    -------
    dict
        With ``sampling_rate``, ``num_mel_bins``, ``max_length``, ``do_normalize``,
        ``mean`` and ``std``.

    Raises
    ------
    ValueError
        If the bank would not be one that the model reads, or numbers in it infinite.

    Examples
    --------
    >>> config = {"model_type": "audio-spectrogram-transformer", "max_length": 128}
    >>> audio_config(config, {})["max_length"]
    128
    """
    full = model_config(config)
    sizes = {name: getattr(full, name) for name in ("num_mel_bins", "max_length")}
    settings = _DEFAULTS | sizes
    settings |= {k: v for k, v in stored.items() if k in settings and v is not None}
    for name, value in (sizes | {"sampling_rate": _RATE}).items():
        if settings[name] != value:
            raise ValueError(f"{name} must be {value}, got {settings[name]!r:.80}.")
    for name in ("mean", "std"):
        _check_number(name, settings[name], positive=name == "std")
    if not isinstance(settings["do_normalize"], bool):
        value = settings["do_normalize"]
        raise ValueError(f"do_normalize must be a bool, got {value!r:.80}.")
    return settings


def _check_number(name: str, value, positive: bool) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or (positive and value <= 0):
        rule = "a positive number" if positive else "a number"
        raise ValueError(f"{name} must be {rule}, got {value!r:.80}.")
