"""Turn one text into token ids."""

import copy
from typing import Any
from weakref import WeakKeyDictionary

# Copies by tokenizer, and by what they were made for: copying one takes longer than all
# else that a row costs, 20 ms for BERT's words and 100 for CLIP's. Weak, as who clears
# the cache of backbones wants their tokenizers gone, too.
_PREPARED: WeakKeyDictionary[Any, dict] = WeakKeyDictionary()
# Lengths of one tokenizer that are kept; a search over more makes some again.
_MOST_LENGTHS = 4


def prepare_tokenizer(tokenizer: Any, max_length: int) -> "TextTokenizer":
    """Return a `TextTokenizer`, the same one whenever the same is asked for.

    Safe in threads: what is returned is finished, and encoding changes nothing in it.
    Two threads that come first at once make one each, and both will do.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerFast
    max_length : int
        Longer texts are cut to so many tokens, special tokens included.

    Raises
    ------
    ValueError
        As `TextTokenizer` does.
    """
    # All that is read of the tokenizer beside its words.
    side, pad_id = _side(tokenizer), tokenizer.pad_token_id
    key = int(max_length), side, pad_id
    known = _PREPARED.get(tokenizer, {})
    if key not in known:
        made = TextTokenizer(tokenizer, max_length)
        newest = list(known.items())[-_MOST_LENGTHS + 1 :]
        # Another dict, not a change of one that other threads may look at. No lock:
        # a process that is forked meanwhile would wait for it for ever.
        _PREPARED[tokenizer] = known = {**dict(newest), key: made}
    return known[key]


def _side(tokenizer: Any) -> str:
    """Where a tokenizer cuts: that of its Python part, which the copy forgets."""
    return getattr(tokenizer, "truncation_side", "right")


class TextTokenizer:
    """Encode one text at a time with a Hugging Face fast tokenizer.

    Batches would make the tokenizer start threads, which forked workers inherit half
    of; the tokenizer given is copied, so that its own settings stay as they are.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerFast
    max_length : int
        Longer texts are cut to so many tokens, special tokens included.

    Attributes
    ----------
    pad_id : int
        The id that fills shorter texts of a batch.

    Raises
    ------
    ValueError
        If `max_length` leaves no room for special tokens, or if the tokenizer adds
        none, so that a missing text would be an empty sequence.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = copy.deepcopy(tokenizer.backend_tokenizer)
        # The file may have switched on padding to a fixed length.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        n_special = len(self._tokenizer.encode("").ids)
        if n_special == 0:
            raise ValueError(
                "The tokenizer must add special tokens to a text, "
                f"{type(tokenizer).__name__} adds none."
            )
        if max_length <= n_special:
            raise ValueError(
                f"max_length must be more than the {n_special} special tokens, "
                f"got {max_length!r}."
            )
        self._tokenizer.enable_truncation(int(max_length), direction=_side(tokenizer))
        self.max_length = int(max_length)
        # Padding is masked, so any id will do where there is none.
        self.pad_id = tokenizer.pad_token_id or 0

    def __call__(self, text: str | None) -> list[int]:
        """Return the ids of one text; those of ``""`` if it is missing."""
        # "" is what the methods' papers feed for a missing text: its special tokens
        # alone.
        return self._tokenizer.encode(_valid_unicode(text or "")).ids

    def to_json(self) -> str:
        """Return it, cutting included, as ``tokenizers.Tokenizer.from_str`` reads."""
        return self._tokenizer.to_str()

    def words(self, text: str) -> tuple[list[str], list[int | None]]:
        """Return the words of a text, and the word that each of its tokens is of.

        Words are as the text spells them, but for those that are cut off, and tokens
        are those of calling this; the word of a special token is None.
        """
        text = _valid_unicode(text)
        encoding = self._tokenizer.encode(text)
        spans: dict[int, tuple[int, int]] = {}
        for word, (start, stop) in zip(
            encoding.word_ids, encoding.offsets, strict=True
        ):
            if word is not None:
                spans[word] = spans.get(word, (start, stop))[0], stop
        # Counted anew: where the start of a text is cut off, the first is not 0.
        places = {word: place for place, word in enumerate(spans)}
        words = [text[start:stop].strip() for start, stop in spans.values()]
        return words, [places.get(word) for word in encoding.word_ids]


def _valid_unicode(text: str) -> str:
    # Lone surrogates (from a broken JSON or file name) cannot be encoded as UTF-8; the
    # round trip also joins surrogate pairs into the character they spell.
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
