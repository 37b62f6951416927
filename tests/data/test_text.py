"""Texts become ids one at a time, as transformers would encode them."""

import copy
import gc
import pickle
import threading
import weakref

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from robustmm import load_backbone
from robustmm.data import text as module
from robustmm.data.text import TextTokenizer, prepare_tokenizer


def fast_tokenizer(special=True, **options):
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "a",
        "cat",
        "dog",
        "\ufffd",
        "\U0001f600",
    ]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", **options
    )


def test_ids_with_special_tokens():
    tokenize = TextTokenizer(fast_tokenizer(), 10)
    assert tokenize("a cat") == [2, 4, 5, 3]
    assert tokenize.pad_id == 0


@pytest.mark.parametrize("missing", [None, ""])
def test_missing_text_is_two_special_tokens(missing):
    assert TextTokenizer(fast_tokenizer(), 10)(missing) == [2, 3]


def test_long_texts_keep_the_last_special_token():
    tokenize = TextTokenizer(fast_tokenizer(), 4)
    assert tokenize("a cat dog a cat dog") == [2, 4, 5, 3]
    left = TextTokenizer(fast_tokenizer(truncation_side="left"), 4)
    assert left("a cat dog a cat dog") == [2, 5, 6, 3]


def test_words_are_spelled_as_in_the_text_and_tokens_know_theirs():
    tokenize = TextTokenizer(load_backbone("robustmm/tiny-bert").tokenizer, 40)
    text = "A Caf\u00e9, unbelievable!"
    words, word_of = tokenize.words(text)
    assert words == ["A", "Caf\u00e9", ",", "unbelievable", "!"]
    assert len(word_of) == len(tokenize(text)) > len(words) + 2
    assert (word_of[0], word_of[-1]) == (None, None)
    inner = word_of[1:-1]
    assert inner == sorted(inner)
    assert set(inner) == set(range(5))
    assert tokenize.words("") == ([], [None, None])


def test_words_are_those_that_fit():
    tokenize = TextTokenizer(fast_tokenizer(), 4)
    assert tokenize.words("a cat dog") == (["a", "cat"], [None, 0, 1, None])
    left = TextTokenizer(fast_tokenizer(truncation_side="left"), 4)
    assert left.words("a cat dog") == (["cat", "dog"], [None, 0, 1, None])


def test_equal_to_transformers():
    tokenizer = fast_tokenizer()
    tokenize = TextTokenizer(tokenizer, 5)
    for text in ("", "a", "a bird", "dog dog dog dog dog dog"):
        assert (
            tokenize(text) == tokenizer(text, truncation=True, max_length=5).input_ids
        )


def test_the_tokenizers_own_settings_neither_matter_nor_change():
    tokenizer = fast_tokenizer()
    backend = tokenizer.backend_tokenizer
    backend.enable_padding(length=12)
    backend.enable_truncation(3)
    tokenize = TextTokenizer(tokenizer, 8)
    assert tokenize("a cat dog") == [2, 4, 5, 6, 3]
    assert backend.padding["length"] == 12
    assert backend.truncation["max_length"] == 3


def test_surrogates():
    tokenize = TextTokenizer(fast_tokenizer(), 10)
    assert tokenize("a \ud800 cat") == [2, 4, 7, 5, 3]
    assert tokenize("a \udfff") == [2, 4, 7, 3]
    assert tokenize("a \ud83d\ude00") == [2, 4, 8, 3]  # a pair spells one character
    assert tokenize("a \U0001f600") == [2, 4, 8, 3]


def test_pickle_and_no_pad_token():
    tokenizer = fast_tokenizer()
    tokenizer.pad_token = None
    tokenize = pickle.loads(pickle.dumps(TextTokenizer(tokenizer, 4)))
    assert tokenize("a cat dog") == [2, 4, 5, 3]
    assert (tokenize.pad_id, tokenize.max_length) == (0, 4)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_max_length_must_leave_room(length):
    with pytest.raises(ValueError, match=f"the 2 special tokens, got {length}"):
        TextTokenizer(fast_tokenizer(), length)


def test_a_tokenizer_without_special_tokens_is_refused():
    with pytest.raises(ValueError, match="must add special tokens"):
        TextTokenizer(fast_tokenizer(special=False), 10)


# ------------------------------------------------------------------------ made once


@pytest.fixture
def copies(monkeypatch):
    """The tokenizers that were copied."""
    seen = []
    original = copy.deepcopy

    def spy(value, *memo):
        seen.append(value)
        return original(value, *memo)

    monkeypatch.setattr(module.copy, "deepcopy", spy)
    return seen


def test_one_copy_per_tokenizer_and_length(copies):
    tokenizer, other = fast_tokenizer(), fast_tokenizer()
    first = prepare_tokenizer(tokenizer, 4)
    assert first("a cat dog") == TextTokenizer(tokenizer, 4)("a cat dog")
    copies.clear()
    assert prepare_tokenizer(tokenizer, 4) is first
    assert not copies
    assert prepare_tokenizer(tokenizer, 5)("a cat dog") == [2, 4, 5, 6, 3]
    assert prepare_tokenizer(tokenizer, 4) is first
    assert prepare_tokenizer(other, 4) is not first
    assert len(copies) == 2


def test_what_is_read_beside_the_words_may_change():
    tokenizer = fast_tokenizer()
    assert prepare_tokenizer(tokenizer, 4)("a cat dog") == [2, 4, 5, 3]
    tokenizer.truncation_side = "left"
    assert prepare_tokenizer(tokenizer, 4)("a cat dog") == [2, 5, 6, 3]
    tokenizer.pad_token = "cat"
    assert prepare_tokenizer(tokenizer, 4).pad_id == 5


def test_few_lengths_are_kept_and_none_of_a_tokenizer_that_is_gone():
    tokenizer = fast_tokenizer()
    made = [weakref.ref(prepare_tokenizer(tokenizer, n)) for n in range(4, 44)]
    gc.collect()
    kept = [n for n, reference in enumerate(made, 4) if reference() is not None]
    assert kept == [40, 41, 42, 43]
    del tokenizer
    gc.collect()
    assert not any(reference() for reference in made)


def test_threads_with_other_lengths_do_not_disturb_each_other():
    tokenizer, text, wrong = fast_tokenizer(), "a cat dog " * 8, []

    def encode(length):
        for _ in range(300):
            ids = prepare_tokenizer(tokenizer, length)(text)
            if len(ids) != length or ids[-1] != 3:
                wrong.append((length, ids))

    threads = [threading.Thread(target=encode, args=(n,)) for n in (4, 5, 6, 7) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_refused_is_not_kept():
    tokenizer = fast_tokenizer()
    for _ in range(2):
        with pytest.raises(ValueError, match="the 2 special tokens, got 2"):
            prepare_tokenizer(tokenizer, 2)
