"""Rows become items and batches, alone, in workers, and with bad images among them."""

import io
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from robustmm.data import (
    IMAGES,
    BadImage,
    ByteCache,
    Collate,
    ImageTransform,
    MultimodalDataset,
    Rows,
    TextTokenizer,
    bad_images_of,
    preprocess,
    read_rows,
)

TRANSFORM = ImageTransform(size=(8, 8))
RAGGED = ImageTransform(shortest_edge=8, size_divisor=4)


def make_tokenizer():
    ids = {
        w: i
        for i, w in enumerate(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "sat"]
        )
    }
    backend = Tokenizer(models.WordLevel(ids, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    return TextTokenizer(fast, 6)


TOKENIZER = make_tokenizer()


def picture(value, size=(8, 8)):
    return np.full((*size, 3), value, dtype=np.uint8)


def make_rows(images, texts=None, index=None):
    texts = ["a cat"] * len(images) if texts is None else texts
    return Rows(list(images), list(texts), index or list(range(len(images))))


def batch_of(dataset, positions=None, **options):
    positions = range(len(dataset)) if positions is None else positions
    collate = Collate(dataset.transform, dataset.tokenizer, **options)
    batch, targets = collate([dataset[i] for i in positions])
    return read_by_an_encoder(batch), targets


def read_by_an_encoder(batch):
    """A batch as a net's module gets it."""
    batch = dict(batch)
    pictures = batch.pop("pictures", None)
    return batch if pictures is None else batch | pictures.pixels()


# ------------------------------------------------------------------------------ items


def test_items():
    rows = make_rows([picture(9), None], ["a cat", None])
    weights = np.array([0.5, 2], dtype=np.float32)
    dataset = MultimodalDataset(rows, TRANSFORM, TOKENIZER, np.array([3, 4]), weights)
    assert len(dataset) == 2
    item, target = dataset[0]
    np.testing.assert_array_equal(item.pop("image"), picture(9))
    assert item == {
        "row": 0,
        "ids": [2, 4, 5, 3],
        "weight": 0.5,
        "present": (True, True),
        "bad": None,
    }
    assert target == 3
    item, target = dataset[1]
    assert item == {
        "row": 1,
        "image": None,
        "ids": [2, 3],
        "weight": 2.0,
        "present": (False, False),
        "bad": None,
    }
    assert target == 4


def test_defaults():
    item, target = MultimodalDataset(make_rows([None]), None, None)[0]
    assert (item["image"], item["ids"], item["weight"], target) == (None, [], 1.0, 0)


def test_without_a_transform_no_image_is_opened():
    dataset = MultimodalDataset(make_rows(["none.png"]), None, TOKENIZER)
    item, _ = dataset[0]
    assert item["present"] == (True, True)
    assert item["image"] is item["bad"] is None


def test_text_lengths_open_no_image():
    rows = make_rows([b"", "none.png", None], ["four", None, "sixsix"])
    lengths = MultimodalDataset(rows, TRANSFORM, TOKENIZER).text_lengths
    assert lengths.tolist() == [4, 0, 6]
    assert lengths.dtype == np.int64


def test_image_root(tmp_path):
    Image.fromarray(picture(40)).save(tmp_path / "a.png")
    df = pd.DataFrame({"image": ["a.png"], "text": ["a cat"]})
    rows = read_rows(df, image_root=tmp_path)
    for cache in (None, ByteCache(10**6)):
        item, _ = MultimodalDataset(rows, TRANSFORM, TOKENIZER, cache=cache)[0]
        np.testing.assert_array_equal(item["image"], picture(40))


@pytest.mark.parametrize("name", ["targets", "weights"])
def test_lengths_must_agree(name):
    with pytest.raises(ValueError, match=f"{name} must have 2 entries, got 3"):
        MultimodalDataset(make_rows([None, None]), None, None, **{name: np.ones(3)})


def test_on_bad_image_is_checked():
    rule = "'raise', 'record' or 'ignore', got 'missing'"
    with pytest.raises(ValueError, match=rule):
        MultimodalDataset(make_rows([None]), None, None, on_bad_image="missing")


# ------------------------------------------------------------------------- bad images


def test_a_bad_image_names_its_label():
    rows = make_rows([picture(1), b"nothing"], index=["fine", ("movie", 7)])
    dataset = MultimodalDataset(rows, TRANSFORM, TOKENIZER)
    assert dataset[0][0]["image"] is not None
    with pytest.raises(ValueError, match=r"row \('movie', 7\): not an image") as error:
        dataset[1]
    assert not isinstance(error.value, BadImage)


@pytest.mark.parametrize("cache", [None, ByteCache(10**6)])
def test_a_recorded_bad_image_counts_as_missing(cache):
    rows = make_rows([picture(1), b"", "no/such.png"], ["a", "cat", None])
    dataset = MultimodalDataset(
        rows, TRANSFORM, TOKENIZER, cache=cache, on_bad_image="record"
    )
    batch, _ = batch_of(dataset)
    assert batch["present"].tolist() == [[True, True], [False, True], [False, False]]
    assert len(batch["bad"]) == 3
    bad = bad_images_of(batch)
    assert list(bad) == [1, 2]
    assert "zero bytes" in bad[1]
    assert "no such file" in bad[2]
    assert batch["sample_weight"].tolist() == [1, 1, 0]  # nothing is left of the last
    assert (batch["pixel_values"][1:] == 1).all()
    assert (batch["pixel_values"][0] != 1).all()


# ---------------------------------------------------------------------------- batches


def test_a_batch():
    rows = make_rows([picture(0), None, picture(255)], ["a cat sat", "a", None])
    weights = np.array([1, 2, 3], dtype=np.float32)
    dataset = MultimodalDataset(rows, TRANSFORM, TOKENIZER, np.arange(3), weights)
    batch, targets = batch_of(dataset, [2, 0, 1])
    assert type(batch) is dict
    assert set(batch) == {
        "input_ids",
        "attention_mask",
        "pixel_values",
        "present",
        "sample_weight",
        "row",
    }
    assert batch["input_ids"].tolist() == [
        [2, 3, 0, 0, 0],
        [2, 4, 5, 7, 3],
        [2, 4, 3, 0, 0],
    ]
    assert batch["attention_mask"].sum(1).tolist() == [2, 5, 3]
    assert batch["pixel_values"].shape == (3, 3, 8, 8)
    assert batch["pixel_values"].amax((1, 2, 3)).tolist() == [1, -1, 1]
    assert batch["present"].tolist() == [[True, False], [True, True], [False, True]]
    assert batch["sample_weight"].tolist() == [3, 1, 2]
    assert batch["row"].tolist() == [2, 0, 1]
    assert targets.tolist() == [2, 0, 1]


def test_dtypes():
    rows = make_rows([picture(0), None])
    for targets, dtype in [
        (None, torch.long),
        (np.array([0, 1]), torch.long),
        (np.eye(2, dtype=np.float32), torch.float32),
    ]:
        batch, y = batch_of(MultimodalDataset(rows, TRANSFORM, TOKENIZER, targets))
        assert y.dtype == dtype
        assert y.shape == ((2, 2) if dtype == torch.float32 else (2,))
    dtypes = {name: values.dtype for name, values in batch.items()}
    assert dtypes == {
        "input_ids": torch.long,
        "attention_mask": torch.long,
        "pixel_values": torch.float32,
        "present": torch.bool,
        "sample_weight": torch.float32,
        "row": torch.long,
    }


def test_only_what_is_asked_for():
    rows = make_rows([picture(0)])
    texts, _ = batch_of(MultimodalDataset(rows, None, TOKENIZER))
    assert "pixel_values" not in texts
    assert "input_ids" in texts
    images, _ = batch_of(MultimodalDataset(rows, TRANSFORM, None), with_weights=False)
    assert set(images) == {"pixel_values", "present", "row"}


def test_all_texts_missing_is_two_tokens_wide():
    dataset = MultimodalDataset(make_rows([None] * 2, [None] * 2), None, TOKENIZER)
    batch, _ = batch_of(dataset)
    assert batch["input_ids"].tolist() == [[2, 3]] * 2
    assert batch["attention_mask"].tolist() == [[1, 1]] * 2


def test_equal_sizes_have_no_pixel_mask():
    cells = [picture(0, (12, 8)), picture(9, (24, 16))]
    batch, _ = batch_of(MultimodalDataset(make_rows(cells), RAGGED, None))
    assert batch["pixel_values"].shape == (2, 3, 12, 8)
    assert "pixel_mask" not in batch


def test_mixed_sizes_are_padded_after_normalisation():
    cells = [picture(0, (8, 8)), picture(0, (16, 24)), None]
    batch, _ = batch_of(MultimodalDataset(make_rows(cells), RAGGED, None))
    values, mask = batch["pixel_values"], batch["pixel_mask"]
    assert values.shape == (3, 3, 8, 12)
    assert mask.dtype == torch.long
    assert mask.sum((1, 2)).tolist() == [64, 96, 64]
    assert mask[0, :, :8].all()
    assert not mask[0, :, 8:].any()
    assert (values[0, :, :, :8] == -1).all()
    assert (values[0, :, :, 8:] == 0).all()
    assert (values[1] == -1).all()
    assert (values[2, :, :, :8] == 1).all()


def test_padding_changes_no_image():
    random = np.random.default_rng(0)
    cells = [
        random.integers(0, 256, (h, w, 3), dtype=np.uint8)
        for h, w in [(16, 12), (8, 16), (9, 9)]
    ]
    dataset = MultimodalDataset(make_rows(cells), RAGGED, None)
    together = batch_of(dataset)[0]["pixel_values"]
    for i in range(3):
        alone = batch_of(dataset, [i])[0]["pixel_values"][0]
        _, height, width = alone.shape
        assert torch.equal(together[i, :, :height, :width], alone)


# ---------------------------------------------------------------- pickles and workers


def test_pickle():
    rows = make_rows([picture(4), None], ["a cat", None])
    dataset = MultimodalDataset(rows, TRANSFORM, TOKENIZER, cache=IMAGES)
    opened, collate = pickle.loads(
        pickle.dumps((dataset, Collate(TRANSFORM, TOKENIZER)))
    )
    assert opened.images.cache is IMAGES
    batch = read_by_an_encoder(collate([opened[0], opened[1]])[0])
    expected, _ = batch_of(dataset)
    assert set(batch) == set(expected)
    for name, values in expected.items():
        assert torch.equal(batch[name], values)


def png(value):
    stream = io.BytesIO()
    Image.fromarray(picture(value)).save(stream, "PNG")
    return stream.getvalue()


def test_workers_give_the_same_batches_without_warnings(tmp_path):
    for i in range(6):
        Image.fromarray(picture(10 * i)).save(tmp_path / f"{i}.png")
    cells = [str(tmp_path / f"{i}.png") for i in range(6)]
    cells += [None, png(90), bytearray(png(91)), Image.fromarray(picture(92))]
    texts = ["a cat sat", None, "dog", "a dog sat", "cat"] * 2
    dataset = MultimodalDataset(
        make_rows(cells, texts), TRANSFORM, TOKENIZER, cache=ByteCache(10**6)
    )
    collate = Collate(TRANSFORM, TOKENIZER)
    loaders = [
        DataLoader(dataset, 4, collate_fn=collate, num_workers=workers)
        for workers in (0, 2)
    ]
    for (one, y1), (two, y2) in zip(*loaders, strict=True):
        assert set(one) == set(two)
        one, two = map(read_by_an_encoder, (one, two))
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert torch.equal(y1, y2)


def test_with_workers_the_process_itself_neither_tokenises_nor_decodes(monkeypatch):
    here, tokenize, decode = [], TextTokenizer.__call__, preprocess.decode
    monkeypatch.setattr(
        TextTokenizer, "__call__", lambda *args: here.append("text") or tokenize(*args)
    )
    monkeypatch.setattr(
        preprocess, "decode", lambda *args: here.append("image") or decode(*args)
    )
    dataset = MultimodalDataset(
        make_rows([png(i) for i in range(4)]), RAGGED, TOKENIZER
    )
    collate = Collate(RAGGED, TOKENIZER)
    for workers, expected in ((1, set()), (0, {"text", "image"})):
        for batch, _ in DataLoader(dataset, 2, collate_fn=collate, num_workers=workers):
            read_by_an_encoder(batch)
        assert set(here) == expected


def test_open_pictures_survive_forked_workers(tmp_path):
    # Until it is read, a picture from Image.open shares one file position with all
    # forked workers.
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (12, 90, 90, 3), dtype=np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for pixels, path in zip(pictures, paths, strict=True):
        Image.fromarray(pixels).save(path)
    shared = [Image.open(path) for path in paths]
    cells = [shared[i // 4] for i in range(48)]
    dataset = MultimodalDataset(make_rows(cells), ImageTransform(size=(90, 90)), None)
    collate = Collate(dataset.transform, None)
    loader = DataLoader(dataset, 1, collate_fn=collate, num_workers=2)
    for i, (batch, _) in enumerate(loader):
        expected = torch.from_numpy(pictures[i // 4])[None]
        pixels = read_by_an_encoder(batch)["pixel_values"]
        assert torch.equal(pixels, dataset.transform.normalize(expected))


def test_damaged_open_pictures_are_reported_late():
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    damaged = Image.open(io.BytesIO(stream.getvalue()[:9000]))
    dataset = MultimodalDataset(make_rows([None, damaged]), TRANSFORM, None)
    assert dataset[0][0]["bad"] is None
    with pytest.raises(ValueError, match=r"row 1: .*truncated"):
        dataset[1]


def test_bad_image_in_a_worker_is_named():
    rows = make_rows([picture(0), b""], index=["x", "the bad one"])
    dataset = MultimodalDataset(rows, TRANSFORM, None)
    loader = DataLoader(dataset, 2, collate_fn=Collate(TRANSFORM, None), num_workers=1)
    with pytest.raises(ValueError, match="row 'the bad one': it is empty"):
        next(iter(loader))


# ------------------------------------------------------------------------------- keys


def test_items_carry_keys_where_there_is_a_cache():
    rows = make_rows([picture(1), None, picture(2), picture(1), b"no picture"])
    cache = ByteCache(10_000)

    def batch_with(cache, transform=TRANSFORM):
        dataset = MultimodalDataset(
            rows, transform, TOKENIZER, cache=cache, on_bad_image="record"
        )
        return batch_of(dataset)[0]

    assert "image_key" not in batch_with(None)
    assert "image_key" not in batch_with(cache, transform=None)
    keys = batch_with(cache)["image_key"]
    assert keys.shape == (5, 20)
    assert keys.dtype == torch.uint8
    assert torch.equal(keys[0], keys[3])
    assert not torch.equal(keys[0], keys[2])
    assert keys[0].any()
    assert not keys[[1, 4]].any()
    assert cache.get(keys[2].numpy().tobytes()) is not None
    # A cache without room: what is computed from images may be kept elsewhere.
    assert torch.equal(batch_with(ByteCache(0))["image_key"], keys)


# ----------------------------------------------------------------- cells taken away


@pytest.mark.parametrize("transform", [TRANSFORM, RAGGED, None])
@pytest.mark.parametrize("tokenizer", [TOKENIZER, None])
@pytest.mark.parametrize(
    "sizes", [[(8, 8)] * 4, [(8, 12)] * 4, [(8, 8), (12, 8), (8, 16), (8, 8)]], ids=str
)
def test_what_is_hidden_is_as_if_it_had_been_missing(transform, tokenizer, sizes):
    images = [picture(20 * i, size) for i, size in enumerate(sizes)]
    texts = ["a cat", "a cat sat", "dog", "cat"]
    hidden = torch.tensor([[True, False], [False, True], [False, False], [True, False]])
    left = make_rows(
        [None if gone else im for im, gone in zip(images, hidden[:, 0], strict=True)],
        [None if gone else t for t, gone in zip(texts, hidden[:, 1], strict=True)],
    )
    cache = ByteCache(2**20)
    data, lost = (
        MultimodalDataset(rows, transform, tokenizer, cache=cache)
        for rows in (make_rows(images, texts), left)
    )
    collate = Collate(transform, tokenizer)
    raw, _ = collate([data[i] for i in range(len(data))])
    before = {name: t.clone() for name, t in read_by_an_encoder(raw).items()}
    found = read_by_an_encoder(collate.hide(raw, hidden))
    batch = read_by_an_encoder(raw)
    assert all(torch.equal(batch[name], before[name]) for name in before)
    expected, _ = batch_of(lost)
    assert torch.equal(found["present"], expected["present"])
    if tokenizer is not None:
        # The longest text is one of the hidden: its place is padding now.
        longest = expected["input_ids"].shape[1]
        for name in ("input_ids", "attention_mask"):
            assert torch.equal(found[name][:, :longest], expected[name])
            assert not found["attention_mask"][:, longest:].any()
    if transform is not None:
        assert torch.equal(found["image_key"], expected["image_key"])
        assert_same_pictures(found, expected)


def assert_same_pictures(found, expected):
    """The same pixels inside, and zeros outside, however far both are padded."""
    for one, other in zip(*map(pictures, (found, expected)), strict=True):
        assert torch.equal(one, other)


def pictures(batch):
    pixels = batch["pixel_values"]
    mask = batch.get("pixel_mask", torch.ones(len(pixels), *pixels.shape[2:]).long())
    assert not (pixels * (1 - mask[:, None])).any()
    sizes = [(int(m[:, 0].sum()), int(m[0].sum())) for m in mask]
    assert all(m.sum() == h * w for m, (h, w) in zip(mask, sizes, strict=True))
    return [p[:, :h, :w] for p, (h, w) in zip(pixels, sizes, strict=True)]


def test_hiding_nothing_changes_nothing():
    data = MultimodalDataset(make_rows([picture(3)]), TRANSFORM, TOKENIZER)
    collate = Collate(TRANSFORM, TOKENIZER)
    batch, _ = collate([data[0]])
    found = read_by_an_encoder(collate.hide(batch, torch.zeros(1, 2).bool()))
    batch = read_by_an_encoder(batch)
    assert found.keys() == batch.keys()
    assert all(torch.equal(found[name], batch[name]) for name in batch)
