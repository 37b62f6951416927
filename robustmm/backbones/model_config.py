"""What a ``config.json`` may say: sizes and choices of its architecture, no code.

A configuration of transformers can also name an attention kernel to be fetched, a
quantisation, a program beside the weights or files elsewhere. None of these has a
meaning here, where layers are run by :class:`Stream`, so all that is no field of the
architecture is left out, of a stranger's folder and of anyone's: checkpoints of good
faith carry such entries too. Quantised weights are refused, as nothing here reads them.
"""

from __future__ import annotations

import math

_MAX_NUMBER = 2**31
_MAX_LAYERS = 1000
_MAX_TEXT = 64
_MAX_LIST = 16
# Some releases of transformers count these among what all models share.
_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")
# CLIP's, and what its first checkpoints call the same.
_PARTS = {
    "text_config": "text_config",
    "vision_config": "vision_config",
    "text_config_dict": "text_config",
    "vision_config_dict": "vision_config",
}
_LAYERS = ("num_hidden_layers", "n_layers")


def model_config(stored: dict):
    """Return transformers' configuration of a supported architecture.

    Parameters
    ----------
    stored : dict
        What ``config.json`` says, with a ``model_type`` that is supported.

    Raises
    ------
    ValueError
        For a quantisation, and for values that no such model has.
    """
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[stored["model_type"]]
    try:
        return kind(**_known(kind, stored))
    except Exception as error:  # transformers checks some fields, each in its own way
        raise ValueError(
            f"The config.json must describe a {stored['model_type']!r} model: {error}"
        ) from error


def _known(kind: type, stored: dict) -> dict:
    """Return the entries that are fields of an architecture, checked."""
    from transformers import PreTrainedConfig

    if stored.get("quantization_config") is not None:
        raise ValueError("weights must be plain numbers, got a quantization_config.")
    defaults = kind().to_dict()
    shared = set(PreTrainedConfig().to_dict()) - set(_TOKENS)
    names = (set(defaults) - shared) | set(kind.attribute_map) | set(_TOKENS)
    known = {}
    for name, value in stored.items():
        if name in _PARTS:
            whole = getattr(kind(), _PARTS[name], None)
            if whole is not None and isinstance(value, dict):
                known[name] = _known(type(whole), value)
        elif name in names and not isinstance(defaults.get(name), list):
            known[name] = _checked(name, value)
    return known


def _checked(name: str, value):
    if name in _LAYERS and not (type(value) is int and 0 < value <= _MAX_LAYERS):
        raise ValueError(f"{name} must be in [1, {_MAX_LAYERS}], got {value!r:.80}.")
    items = value if isinstance(value, list) else [value]
    if len(items) > _MAX_LIST or not all(map(_is_plain, items)):
        raise ValueError(f"{name} must be a number or a word, got {value!r:.80}.")
    return value


def _is_plain(value) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and abs(value) <= _MAX_NUMBER)
