"""Fingerprints of what prepares a cell: the tokenizer, and image and audio settings.

They are taken of what these do, not of their files: a tokenizer is written anew when it
is saved, and in other words by another release of the library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from weakref import WeakKeyDictionary

_PROBES = (
    "A red ball, on THE table!",
    "don't re-enter: 3.14 (1,000) $5 #tag @x http://example.org/a_b?c=d",
    "na\u00efve caf\u00e9 e\u0301 stra\u00dfe \u0130stanbul \ufb01 \u00bd \u2122",
    "  two  spaces\ttab\nline\u200b\ufeff\x00\x01end ",
    "\u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 \u0627\u0644\u0639 \u05e2\u05d1",
    "\u0939\u093f \U0001f642\U0001f469\u200d\U0001f467",
    "[CLS] [SEP] [MASK] [PAD] <s> </s> <pad> <mask> <|endoftext|> ##ing",
    "snake_case CamelCase ALLCAPS " + "x" * 200,
)
_N_WORDS = 2000  # of the vocabulary, as further probes
_IMAGE_KEYS = (
    *("do_resize", "size", "resample", "size_divisor", "do_center_crop", "crop_size"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
)
_KNOWN: WeakKeyDictionary = WeakKeyDictionary()  # by tokenizer


def text_fingerprint(tokenizer) -> str:
    """Return a hash of a tokenizer's vocabulary and of what it makes of many texts."""
    if tokenizer not in _KNOWN:
        _KNOWN[tokenizer] = _hash(list(_behaviour(tokenizer)))
    return _KNOWN[tokenizer]


def image_fingerprint(settings: dict) -> str:
    """Return a hash of the image settings that decide about pixels."""
    processor = str(settings.get("image_processor_type")).split("ImageProcessor")[0]
    known = {name: settings.get(name) for name in _IMAGE_KEYS}
    return _hash([processor, known])


def audio_fingerprint(settings: dict) -> str:
    """Return a hash of the audio settings that decide about a filter bank."""
    return _hash(sorted(settings.items()))


def _hash(value) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def _behaviour(tokenizer) -> Iterator:
    text = tokenizer.backend_tokenizer.to_str()
    # A copy: switching padding off would change the one that others use.
    backend = type(tokenizer.backend_tokenizer).from_str(text)
    backend.no_padding()
    backend.no_truncation()
    vocabulary = sorted(backend.get_vocab(with_added_tokens=True).items())
    yield vocabulary
    yield _order(json.loads(text)["model"])
    yield [tokenizer.pad_token_id, getattr(tokenizer, "truncation_side", "right")]
    words = [word for word, _ in vocabulary[:: len(vocabulary) // _N_WORDS + 1]]
    lines = [words[i : i + 20] for i in range(0, len(words), 20)]
    for probe in ("", *_PROBES, *map(" ".join, lines), *map("".join, lines)):
        yield backend.encode(probe).ids


def _order(model: dict) -> list:
    """Return which pieces a word is cut into first: merges or scores, if any."""
    if isinstance(model.get("vocab"), list):
        return model["vocab"]
    merges = model.get("merges") or []
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
