"""Pictures travel as bytes, and become what an encoder reads on its device."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from robustmm.data import ByteCache, Collate, ImageTransform, MultimodalDataset, Rows
from robustmm.data.pictures import Pictures, Unread

TRANSFORM = ImageTransform(size=(8, 8))
RAGGED = ImageTransform(shortest_edge=8, size_divisor=4)


def noise(seed, size=(8, 8)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def unread(cell, cache=None):
    cache = ByteCache(10**6) if cache is None else cache
    return Unread(cell, "the row", None, b"key", cache)


SIZES = [[(8, 8)] * 3, [(8, 8), (12, 8), (8, 12)]]


@pytest.mark.parametrize("sizes", SIZES, ids=["equal", "mixed"])
def test_every_way_to_an_encoder_gives_the_same(sizes):
    pictures = Pictures([noise(i, s) for i, s in enumerate(sizes)] + [None], RAGGED)
    expected = pictures.pixels()
    opened = pickle.loads(pickle.dumps(pictures))
    late = Pictures([unread(im) for im in pictures.images], RAGGED)
    waits = pickle.loads(pickle.dumps(late))
    for way in (opened, pictures[range(4)], late, waits, opened[[0, 1, 2, 3]]):
        found = way.pixels()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [len(way) for way in (opened, late, pictures[[2, 1]])] == [4, 4, 2]


def test_some_rows_are_padded_only_as_far_as_they_need():
    pictures = Pictures([noise(0), noise(1, (8, 16)), noise(2)], RAGGED)
    assert pictures.pixels()["pixel_values"].shape == (3, 3, 8, 16)
    alone = pictures[torch.tensor([2, 0])].pixels()
    assert list(alone) == ["pixel_values"]
    assert torch.equal(
        alone["pixel_values"][0],
        RAGGED.normalize(torch.from_numpy(noise(2))[None])[0],
    )


def test_what_is_not_asked_for_is_not_made(monkeypatch):
    made, original = [], ImageTransform.__call__

    def spy(self, cell, image_root=None):
        made.append(cell)
        return original(self, cell, image_root)

    monkeypatch.setattr(ImageTransform, "__call__", spy)
    cells = [noise(i, (9, 9)) for i in range(3)]
    pictures = Pictures([unread(cell) for cell in cells], TRANSFORM)
    assert pictures.unread == [True] * 3
    pictures[[1]].pixels()
    pictures.hide(torch.tensor([True, True, False]))
    pickle.dumps(pictures)
    assert [cell is cells[1] for cell in made] == [True]


def test_hiding_leaves_the_pictures_alone():
    pictures = Pictures([noise(0), unread(noise(1))], TRANSFORM)
    white = pictures.hide(torch.tensor([False, True])).pixels()["pixel_values"]
    assert (white[1] == 1).all()
    assert torch.equal(white[0], pictures.pixels()["pixel_values"][0])
    assert pictures.unread == [False, True]


def test_a_picture_that_is_gone_is_named():
    pictures = Pictures([unread(b"")], TRANSFORM)
    with pytest.raises(ValueError, match=r"row 'the row': it is empty \(zero bytes\)"):
        pictures.pixels()


def test_a_late_picture_is_looked_up_and_kept():
    cache = ByteCache(10**6)
    cache.put(b"key", noise(5))
    late = unread(b"", cache)
    np.testing.assert_array_equal(late.read(TRANSFORM), noise(5))
    cache.put(b"key", np.zeros((1, 8), np.uint8))  # of something else
    other = unread(noise(6), cache)
    np.testing.assert_array_equal(other.read(TRANSFORM), noise(6))
    np.testing.assert_array_equal(cache.get(b"key"), noise(6))


def test_batches_of_workers_are_bytes():
    rows = Rows([noise(i) for i in range(4)], [None] * 4, list(range(4)))
    data = MultimodalDataset(rows, TRANSFORM, None)
    loader = DataLoader(data, 2, collate_fn=Collate(TRANSFORM, None), num_workers=1)
    for i, (batch, _) in enumerate(loader):
        assert "pixel_values" not in batch
        assert len(batch["pictures"]) == 2
        (packed,) = {batch["pictures"]._pack()}
        assert packed.dtype == torch.uint8
        expected = np.concatenate([noise(2 * i).ravel(), noise(2 * i + 1).ravel()])
        np.testing.assert_array_equal(packed.numpy(), expected)


@pytest.mark.cuda
def test_pinned_bytes_become_the_same_pixels_there():
    for sizes in SIZES:
        pictures = Pictures([noise(i, s) for i, s in enumerate(sizes)], RAGGED)
        pinned = pictures.pin_memory()
        assert pinned._pack().is_pinned()
        found = pinned.pixels(lambda t: t.to("cuda", non_blocking=True))
        for name, expected in pictures.pixels().items():
            assert found[name].is_cuda
            assert torch.equal(found[name].cpu(), expected)
