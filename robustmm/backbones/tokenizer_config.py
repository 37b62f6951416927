"""Read a tokenizer from copies of its files, with the settings that are known.

``tokenizer_config.json`` and ``special_tokens_map.json`` can name files elsewhere,
programs and templates, and transformers follows some of them. So it is given a folder
of ours, with files that have a known name and entries that have a known meaning.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from .hub import find_file, read_json

TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model")
_BESIDE = ("merges.txt",)
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
_ADDED = "added_tokens.json"
_MAX_BYTES = 2**27  # the largest vocabularies take a fifth of this
_MAX_LENGTH = 1e31  # transformers writes 1e30 for "unknown"

_FLAGS = (
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "do_basic_tokenize"),
    *("add_prefix_space", "trim_offsets", "clean_up_tokenization_spaces"),
    *("keep_accents", "remove_space", "split_special_tokens", "lowercase"),
)
_WORDS = ("backend", "errors", "padding_side", "truncation_side", "tokenizer_class")
_SPECIAL = (
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token"),
    *("cls_token", "mask_token"),
)
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_OF_TOKEN = {"__type", "content"}
_TOKEN_FLAGS = {"lstrip", "rstrip", "single_word", "normalized", "special"}


def read_tokenizer(location: str, config, local_only: bool):
    """Return the fast tokenizer of a checkpoint.

    Parameters
    ----------
    location : str
        A folder, or an identifier on the hub.
    config : PreTrainedConfig
        Says which class of tokenizer an architecture has.
    local_only : bool

    Raises
    ------
    OSError
        If the files cannot be read.
    ValueError
        If they are too large, or the class does not run on the tokenizers library.
    """
    with TemporaryDirectory(prefix="robustmm-") as folder:
        for name in (*TOKENIZER, *_BESIDE):
            _copy(find_file(location, name, local_only), Path(folder, name))
        for name in (*_SETTINGS, _ADDED):
            stored = read_json(location, name, local_only)
            if isinstance(stored, dict):
                known = _added(stored) if name == _ADDED else known_settings(stored)
                _check_class(known.get("tokenizer_class"))
                Path(folder, name).write_text(json.dumps(known), encoding="utf-8")
        tokenizer = _read(folder, config)
    tokenizer.name_or_path = location
    return tokenizer


def known_settings(stored: dict) -> dict:
    """Return the entries that are settings of a tokenizer, and can be nothing else.

    Examples
    --------
    >>> known_settings({"do_lower_case": True, "vocab_file": "/etc/passwd"})
    {'do_lower_case': True}
    """
    return {name: value for name, value in stored.items() if _is_setting(name, value)}


def _is_setting(name: str, value) -> bool:
    if name in _FLAGS:
        return value is None or isinstance(value, bool)
    if name in _WORDS:
        return isinstance(value, str)
    if name == "model_max_length":
        return isinstance(value, int | float) and 0 < value <= _MAX_LENGTH
    if name in _SPECIAL:
        return _is_token(value)
    if name in _LISTS:
        return isinstance(value, list) and all(map(_is_token, value))
    if name == "added_tokens_decoder" and isinstance(value, dict):
        return all(key.isdecimal() for key in value) and all(
            map(_is_token, value.values())
        )
    return False


def _is_token(value) -> bool:
    if not isinstance(value, dict):
        return isinstance(value, str)
    flags = [value[name] for name in _TOKEN_FLAGS & set(value)]
    typed = all(flag is None or isinstance(flag, bool) for flag in flags)
    known = set(value) <= _OF_TOKEN | _TOKEN_FLAGS
    return known and typed and isinstance(value.get("content"), str)


def _added(stored: dict) -> dict:
    return {name: value for name, value in stored.items() if type(value) is int}


def _check_class(name: str | None) -> None:
    from transformers import PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    if name is None:
        return
    found = tokenizer_class_from_name(name)
    if found is None or not issubclass(found, PreTrainedTokenizerFast):
        raise ValueError(
            "The tokenizer_class must be one of transformers that runs on the "
            f"tokenizers library, got {name!r:.80}."
        )


def _copy(source: str | None, target: Path) -> None:
    if source is None:
        return
    size = os.path.getsize(source)
    if size > _MAX_BYTES:
        raise ValueError(
            f"{target.name} must have at most {_MAX_BYTES} bytes, got {size}."
        )
    shutil.copyfile(source, target)


def _read(folder: str, config):
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            folder, config=config, local_files_only=True, trust_remote_code=False
        )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        raise OSError(f"the tokenizer's files cannot be read: {error}") from error
