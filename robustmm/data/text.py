"""Turn one text into token ids."""

import copy
from typing import Any


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
        # Switching truncation off above has forgotten it; the Python part has it.
        side = getattr(tokenizer, "truncation_side", "right")
        self._tokenizer.enable_truncation(int(max_length), direction=side)
        self.max_length = int(max_length)
        # Padding is masked, so any id will do where there is none.
        self.pad_id = tokenizer.pad_token_id or 0

    def __call__(self, text: str | None) -> list[int]:
        """Return the ids of one text; those of ``""`` if it is missing."""
        # "" is what the methods' papers feed for a missing text: its special tokens
        # alone.
        return self._tokenizer.encode(_valid_unicode(text or "")).ids


def _valid_unicode(text: str) -> str:
    # Lone surrogates (from a broken JSON or file name) cannot be encoded as UTF-8; the
    # round trip also joins surrogate pairs into the character they spell.
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
