"""Items and batches that hold the inputs of two models."""

import numpy as np
import pytest
import torch

from robustmm.data import (
    ByteCache,
    Collate,
    ImageTransform,
    PairedCollate,
    PairedDataset,
    Rows,
)

SMALL, LARGE = ImageTransform(size=(4, 4)), ImageTransform(size=(6, 6))
PICTURES = [np.full((9, 9, 3), value, dtype=np.uint8) for value in (0, 100, 0)]
ROWS = Rows([*PICTURES, None], ["a", None, "c", "d"], [0, 1, 2, "last"])


class Letters:
    """A tokenizer of one number for each letter."""

    pad_id = 0

    def __init__(self, first):
        self.first = first

    def __call__(self, text):
        return [self.first, *map(ord, text or "")]


PAIR = PairedCollate(Collate(SMALL, Letters(1)), Collate(LARGE, Letters(2)))


def test_a_batch_holds_what_both_models_read():
    data = PairedDataset(ROWS, PAIR, cache=ByteCache(10_000))
    batch, _ = PAIR([data[i] for i in range(4)])
    assert batch["pictures"].pixels()["pixel_values"].shape == (4, 3, 4, 4)
    assert batch["second_pictures"].pixels()["pixel_values"].shape == (4, 3, 6, 6)
    assert batch["input_ids"][:, 0].tolist() == [1] * 4
    assert batch["second_input_ids"][:, 0].tolist() == [2] * 4
    assert torch.equal(batch["attention_mask"], batch["second_attention_mask"])
    assert batch["present"].tolist() == [[1, 1], [1, 0], [1, 1], [0, 1]]
    assert not torch.equal(batch["image_key"][0], batch["second_image_key"][0])
    assert torch.equal(batch["second_image_key"][0], batch["second_image_key"][2])


def test_groups_are_rows_of_one_picture():
    data = PairedDataset(ROWS, PAIR)
    assert [data[i][0]["group"] for i in range(4)] == [-1] * 4
    data.mark_groups()
    assert data.groups[0] == data.groups[2]
    assert len(set(data.groups)) == 3
    assert PAIR([data[2], data[3]])[0]["group"].tolist() == data.groups[[2, 3]].tolist()


def test_hiding_a_cell_says_so_and_leaves_the_second_model_s_inputs():
    data = PairedDataset(ROWS, PAIR)
    batch, _ = PAIR([data[0], data[1]])
    hidden = PAIR.hide(batch, torch.tensor([[True, False], [False, False]]))
    assert hidden["present"].tolist() == [[False, True], [True, False]]
    pixels = [b["second_pictures"].pixels()["pixel_values"] for b in (hidden, batch)]
    assert torch.equal(*pixels)


@pytest.mark.parametrize("on_bad_image", ["raise", "record", "ignore"])
def test_an_image_that_only_one_model_can_read_is_bad(on_bad_image, monkeypatch):
    data = PairedDataset(ROWS, PAIR, on_bad_image=on_bad_image)
    monkeypatch.setattr(data._pictures, "read", lambda i: (None, None, "it is gone"))
    if on_bad_image == "raise":
        with pytest.raises(ValueError, match="row 1: it is gone"):
            data[1]
        return
    item, _ = data[1]
    assert item["present"] == item["second"]["present"] == (False, False)
    assert item["weight"] == item["second"]["weight"] == 0.0
    assert item["bad"] == ("it is gone" if on_bad_image == "record" else None)
    assert data[0][0]["weight"] == 1.0
    assert data[3][0]["bad"] is None
