"""What a ``config.json`` may say: sizes and choices of its architecture, no code.

A configuration of transformers can also name an attention kernel to be fetched, a
quantisation, a program beside the weights or files elsewhere. None of these has a
meaning here, where layers are run by :class:`Stream`, so all that is no field of the
architecture is left out, of a stranger's folder and of anyone's: checkpoints of good
faith carry such entries too. Quantised weights are refused, as nothing here reads them.
"""

from __future__ import annotations

import functools
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
    kind = _kind(stored)
    try:
        return kind(**_known(kind, stored))
    except Exception as error:  # transformers checks some fields, each in its own way
        raise ValueError(f"{_rule(stored)}: {error}") from error


def check_config(stored: dict) -> None:
    """Raise what :func:`model_config` would, but for what transformers finds."""
    try:
        _known(_kind(stored), stored)
    except ValueError as error:
        raise ValueError(f"{_rule(stored)}: {error}") from error


def _kind(stored: dict) -> type:
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[stored["model_type"]]


def _rule(stored: dict) -> str:
    return f"The config.json must describe a {stored['model_type']!r} model"


def _known(kind: type, stored: dict) -> dict:
    """Return the entries that are fields of an architecture, checked."""
    if stored.get("quantization_config") is not None:
        raise ValueError("weights must be plain numbers, got a quantization_config.")
    names, parts = _fields(kind)
    known = {}
    for name, value in stored.items():
        if name in parts and isinstance(value, dict):
            known[name] = _known(parts[name], value)
        elif name in names:
            known[name] = _checked(name, value)
    return known


@functools.cache
def _fields(kind: type) -> tuple[frozenset[str], dict[str, type]]:
    """Return the fields of an architecture, and the parts that have their own."""
    from transformers import PreTrainedConfig

    defaults = kind().to_dict()
    lists = {name for name, value in defaults.items() if isinstance(value, list)}
    others = set(PreTrainedConfig().to_dict()) | lists | set(_PARTS)
    names = set(defaults) | set(kind.attribute_map)
    whole = {key: getattr(kind(), part, None) for key, part in _PARTS.items()}
    parts = {key: type(part) for key, part in whole.items() if part is not None}
    return frozenset(names - others | set(_TOKENS)), parts


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
