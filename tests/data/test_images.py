"""Image cells: one key per content, decoded once, bad ones found before training."""

import io
import os
import pickle
import subprocess
import threading
import time

import joblib
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from robustmm.data import IMAGES, ByteCache, ImageTransform, Rows, images
from robustmm.data.faults import BadImage
from robustmm.data.images import ImageCells, find_bad_images, image_key, settle

TRANSFORM = ImageTransform(size=(8, 8))


def pixels(value, size=(8, 8)):
    return np.full((*size, 3), value, dtype=np.uint8)


def png(value):
    stream = io.BytesIO()
    Image.fromarray(pixels(value)).save(stream, "PNG")
    return stream.getvalue()


def rows_of(images, index=None, root=None):
    n = len(images)
    return Rows(list(images), [None] * n, index or list(range(n)), root)


def cells_of(images, transform=TRANSFORM, cache=None, index=None, root=None):
    return ImageCells(rows_of(images, index, root), transform, cache)


# ----------------------------------------------------------------- pictures and reasons


def test_pictures_and_reasons(tmp_path):
    Image.fromarray(pixels(40)).save(tmp_path / "a.png")
    images = ["a.png", pixels(9), None, b"", "b.png"]
    for cache in (None, ByteCache(10**6)):
        cells = cells_of(images, cache=cache, root=tmp_path)
        assert len(cells) == 5
        pictures, keys, reasons = zip(*map(cells.read, range(5)), strict=True)
        np.testing.assert_array_equal(pictures[0], pixels(40))
        np.testing.assert_array_equal(pictures[1], pixels(9))
        assert pictures[2:] == (None,) * 3
        assert reasons[:3] == (None,) * 3
        assert "zero bytes" in reasons[3]
        assert "no such file" in reasons[4]
        assert [key is not None for key in keys[:2]] == [cache is not None] * 2
        assert keys[2:] == (None,) * 3


def test_without_a_transform_nothing_is_opened():
    cells = cells_of(["none.png", b""], transform=None, cache=ByteCache(10))
    assert [cells.read(i) for i in range(2)] == [(None, None, None)] * 2


def test_a_key_names_its_picture():
    cache = ByteCache(10**6)
    cells = cells_of([pixels(1), pixels(2), pixels(1)], cache=cache)
    keys = [cells.read(i)[1] for i in range(3)]
    assert keys[0] == keys[2] != keys[1]
    np.testing.assert_array_equal(cache.get(keys[1]), pixels(2))
    assert {len(key) for key in keys} == {20}


def test_a_cache_without_room_still_names_pictures():
    named = cells_of([pixels(1)], cache=ByteCache(10**6)).read(0)
    nothing_kept = cells_of([pixels(1)], cache=ByteCache(0)).read(0)
    assert named[1] == nothing_kept[1]
    np.testing.assert_array_equal(nothing_kept[0], pixels(1))


def test_pickle():
    cells = cells_of([png(3), b""], cache=IMAGES)
    opened = pickle.loads(pickle.dumps(cells))
    assert opened.cache is IMAGES
    np.testing.assert_array_equal(opened.read(0)[0], pixels(3))
    assert opened.read(1)[2] == cells.read(1)[2]


# ------------------------------------------------------------------------------ cached


@pytest.fixture
def decodes(monkeypatch):
    """The cells that a transform was called on."""
    seen = []
    original = ImageTransform.__call__

    def spy(self, cell, image_root=None):
        seen.append(cell)
        return original(self, cell, image_root)

    monkeypatch.setattr(ImageTransform, "__call__", spy)
    return seen


def all_pictures(cells):
    return np.stack([cells.read(i)[0] for i in range(len(cells))])


def test_each_image_is_decoded_once(decodes, tmp_path):
    Image.fromarray(pixels(7)).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    images = [path, pixels(1), Image.fromarray(pixels(2)), path, pixels(1), path]
    cache = ByteCache(10**6)
    cells = cells_of(images, cache=cache)
    first = all_pictures(cells)
    assert len(decodes) == 3
    np.testing.assert_array_equal(all_pictures(cells), first)
    again = cells_of(images[::-1], cache=cache)
    np.testing.assert_array_equal(all_pictures(again), first[::-1])
    assert len(decodes) == 3


def test_pixels_are_hashed_once(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "robustmm.data.images.image_key", lambda *args: calls.append(args) or b"key"
    )
    cells = cells_of([pixels(1)], cache=ByteCache(10**6))
    for _ in range(3):
        cells.read(0)
    assert len(calls) == 1


def test_a_changed_file_is_decoded_again(tmp_path):
    path = tmp_path / "a.png"
    cells = cells_of([path], cache=ByteCache(10**6))
    Image.fromarray(pixels(7)).save(path)
    assert cells.read(0)[0][0, 0, 0] == 7
    Image.fromarray(pixels(80, (20, 20))).save(path)
    assert cells.read(0)[0][0, 0, 0] == 80


def test_no_cache_decodes_each_time(decodes):
    for cache in (None, ByteCache(0)):
        cells = cells_of([pixels(1)], cache=cache)
        decodes.clear()
        cells.read(0), cells.read(0)
        assert len(decodes) == 2


# -------------------------------------------------------------------------- bad images


@pytest.mark.parametrize("num_workers", [0, 3])
def test_find_bad_images(num_workers, capsys):
    images = [pixels(0), None, b"", pixels(3), "http://example.org/a.png", pixels(5)]
    cache = ByteCache(10**6)
    bad = find_bad_images(cells_of(images, cache=cache), num_workers)
    assert list(bad) == [2, 4]
    assert "zero bytes" in bad[2]
    assert "URLs" in bad[4]
    assert len(cache) == 3
    assert capsys.readouterr() == ("", "")


def test_find_bad_images_uses_threads():
    class Watched(ImageCells):
        def check(self, i, is_needed=None):
            threads.add(threading.get_ident())
            return super().check(i, is_needed)

    rows = rows_of([pixels(0)] * 9)
    for num_workers in (0, 2):
        threads = set()
        find_bad_images(Watched(rows, TRANSFORM), num_workers)
        assert (threading.get_ident() in threads) == (num_workers == 0)


def test_find_bad_images_stays_in_threads_whatever_a_caller_s_context_says():
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert find_bad_images(cells_of([pixels(0), b""]), num_workers=2).keys() == {1}


def test_find_bad_images_reads_few_rows_ahead():
    class Watched(ImageCells):
        def check(self, i, is_needed=None):
            ahead.append(i)
            if i == 0:
                raise KeyboardInterrupt
            time.sleep(0.005)  # as a file takes, so that the caller hears of the first
            return super().check(i, is_needed)

    ahead = []
    with pytest.raises(KeyboardInterrupt):
        find_bad_images(Watched(rows_of([pixels(0)] * 999), TRANSFORM), num_workers=2)
    assert len(ahead) <= 64


def test_find_bad_images_shows_progress_when_asked(capsys):
    assert find_bad_images(cells_of([pixels(0)]), progress=True) == {}
    assert "images" in capsys.readouterr().err


CELLS = [png(1), b"", None, png(2)[:-9], "no.png", pixels(3), b"x", png(4)]


@pytest.mark.parametrize("budget", [None, 0, 200, 10**6])
def test_a_check_says_what_reading_says(budget):
    def cells():
        return cells_of(CELLS, cache=None if budget is None else ByteCache(budget))

    assert [cells().check(i) for i in range(8)] == [
        cells().read(i)[2] for i in range(8)
    ]


def test_a_check_keeps_what_fits_and_makes_no_more(decodes):
    cache = ByteCache(3 * 192)
    cells = cells_of([png(i) for i in range(8)], cache=cache)
    with cache.holding():
        assert find_bad_images(cells) == {}
        assert len(decodes) == 4  # the fourth finds no room, and no other is made
        assert len(cache) == 3
        for i in range(8):
            cells.read(i)
        assert len(decodes) == 4 + 5
    cells = cells_of([png(i) for i in range(8)])
    assert find_bad_images(cells) == {}
    assert len(decodes) == 4 + 5


def test_pictures_of_the_table_are_not_dropped_for_others_of_it(decodes):
    cache = ByteCache(3 * 192)
    table = [png(i) for i in range(6)]
    with cache.holding():
        find_bad_images(cells_of(table[3:], cache=cache))
    with cache.holding():
        find_bad_images(cells_of(table, cache=cache))
    assert [cell in decodes[:3] for cell in table] == [False] * 3 + [True] * 3
    assert len(decodes) == 4


@pytest.mark.parametrize("cache", [None, ByteCache(10**6)])
def test_what_is_not_needed_is_not_made(decodes, cache):
    cells = cells_of([png(1), b"", "no.png", png(2), None], cache=cache)
    asked = []

    def is_needed(i, key):
        asked.append((i, len(key)))
        return i == 3

    bad = find_bad_images(cells, is_needed=is_needed)
    if cache is None:  # nothing is known of pictures without names
        assert sorted(bad) == [1, 2]
        return
    # What has no name is bad; of what has one it is said that it was readable.
    assert list(bad) == [2]
    assert asked == [(0, 20), (1, 20), (3, 20)]
    assert len(decodes) == 1
    picture, key, reason = cells.read(0, lambda key: False)
    assert (len(key), reason) == (20, None)
    np.testing.assert_array_equal(picture.read(TRANSFORM), pixels(1))


def test_the_training_hashes_no_pixels_that_the_screening_has(monkeypatch):
    hashed = []
    original = images.image_key
    monkeypatch.setattr(
        images, "image_key", lambda *args: hashed.append(args) or original(*args)
    )
    rows = rows_of([pixels(1), Image.fromarray(pixels(2))])
    for _ in range(2):
        cells = ImageCells(rows, TRANSFORM, ByteCache(10**6))
        assert find_bad_images(cells) == {}
    assert len(hashed) == 2


def test_find_bad_images_without_images():
    assert find_bad_images(cells_of([None])) == {}
    assert find_bad_images(cells_of([b""], transform=None)) == {}


# ----------------------------------------------------------------------- the pixel cap


def capped(max_pixels, **sizes):
    return ImageTransform(**sizes or {"size": (8, 8)}, max_pixels=max_pixels)


def of_every_kind(folder, size):
    """One picture as a path, bytes, an open picture and an array."""
    image = Image.fromarray(pixels(9, size))
    image.save(folder / "a.png")
    data = (folder / "a.png").read_bytes()
    return [str(folder / "a.png"), data, lazy(data), image, np.asarray(image)]


@pytest.mark.parametrize("cache", [None, ByteCache(10**6)])
def test_pictures_over_the_cap_are_bad_even_where_they_are_known(tmp_path, cache):
    images = of_every_kind(tmp_path, (10, 11))
    for max_pixels, n_bad in [(110, 0), (109, 5), (10**9, 0), (109, 5)]:
        cells = cells_of(images, capped(max_pixels), cache)
        bad = find_bad_images(cells)
        assert len(bad) == n_bad
        rule = f"1 to {max_pixels} pixels, got 11 x 10"
        assert all(rule in reason for reason in bad.values())


@pytest.mark.parametrize("cache", [None, ByteCache(10**8)])
def test_so_are_those_that_resizing_makes_too_large(tmp_path, cache):
    images = of_every_kind(tmp_path, (3, 300))
    for max_pixels, n_bad in [(10**5, 0), (10**4, 5), (10**5, 0), (10**4, 5)]:
        transform = capped(max_pixels, shortest_edge=12)
        bad = find_bad_images(cells_of(images, transform, cache))
        assert len(bad) == n_bad
        assert all("too elongated" in reason for reason in bad.values())


def test_a_low_cap_leaves_room_for_what_the_model_reads():
    small = pixels(9, (10, 20))
    for sizes in ({"shortest_edge": 64}, {"shortest_edge": 64, "size_divisor": 8}):
        cells = cells_of([small], capped(200, **sizes), ByteCache(10**6))
        assert cells.read(0)[2] is None
        assert cells.read(0)[0].size > 3 * 200


ENDLESS = [
    np.broadcast_to(np.uint8(0), shape)
    for shape in [(10**6, 10**6), (10**6, 10**6, 3), (10**12,), (10**6, 10**6, 3, 1)]
]


@pytest.mark.parametrize("array", ENDLESS, ids=lambda array: str(array.shape))
@pytest.mark.parametrize("cache", [None, ByteCache(10**6)])
def test_arrays_that_no_memory_holds_are_not_copied(array, cache):
    reason = cells_of([array], cache=cache).read(0)[2]
    assert reason is not None
    assert "got 1000000 x 1000000" in reason or "an array must be uint8" in reason


def test_open_pictures_over_the_cap_are_not_read(monkeypatch):
    def forbidden(self):
        raise OutOfTime("read")

    monkeypatch.setattr(ImageFile.ImageFile, "load", forbidden)
    settle(rows_of([lazy(png(1))]), max_pixels=63)
    with pytest.raises(OutOfTime):
        settle(rows_of([lazy(png(1))]), max_pixels=64)
    assert "1 to 63 pixels" in cells_of([lazy(png(1))], capped(63)).read(0)[2]


def test_the_cap_names_only_what_it_may_change(tmp_path):
    one, other = capped(10**6), capped(10**7)
    path, data, open_picture, image, array = of_every_kind(tmp_path, (9, 9))
    for cell in (open_picture, image, array):
        assert image_key(cell, None, one) == image_key(cell, None, other)
    for cell in (path, data):
        assert image_key(cell, None, one) != image_key(cell, None, other)
    assert one.key == other.key


# ---------------------------------------------------------------------------- settling


def lazy(data):
    """A picture as `Image.open` leaves it: identified, but not read."""
    return Image.open(io.BytesIO(data))


def test_open_pictures_are_read_at_once():
    picture = lazy(png(5))
    assert picture.fp is not None
    settle(rows_of([None, b"", picture, pixels(3)]))
    assert picture.fp is None
    np.testing.assert_array_equal(np.asarray(picture), pixels(5))


def test_damaged_open_pictures_are_left_for_later():
    stream = io.BytesIO()
    Image.effect_noise((90, 90), 50).save(stream, "PNG")
    damaged = lazy(stream.getvalue()[:3000])
    settle(rows_of([damaged]))
    cells = cells_of([damaged, lazy(png(1))])
    assert "truncated" in cells.read(0)[2]
    assert cells.read(1)[2] is None


def failing(monkeypatch, error):
    """Have every picture's codec raise this."""

    def load(self, *args):
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


@pytest.mark.parametrize("cache", [None, ByteCache(10**6)])
def test_a_memory_error_names_the_row(cache, monkeypatch):
    cells = cells_of([None, png(1)], cache=cache, index=["fine", ("movie", 7)])
    failing(monkeypatch, MemoryError("of 7 GB"))
    rule = r"row \('movie', 7\): its image does not fit into memory \(of 7 GB\)"
    with pytest.raises(MemoryError, match=rule):
        cells.read(1)
    with pytest.raises(MemoryError, match=rule):
        find_bad_images(cells, num_workers=2)
    with pytest.raises(MemoryError, match="row 'open': its image does not fit"):
        settle(rows_of([lazy(png(1))], ["open"]))


def test_a_memory_error_outside_the_codec_names_the_row(monkeypatch):
    def resize(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "resize", resize)
    cells = cells_of([pixels(1, (9, 9))], index=["large"])
    with pytest.raises(MemoryError, match=r"row 'large': its image .* memory$"):
        cells.read(0)


@pytest.mark.parametrize("error", [AssertionError(), AssertionError("fp"), KeyError(3)])
def test_what_else_a_codec_raises_is_a_reason(error, monkeypatch):
    failing(monkeypatch, error)
    for cache in (None, ByteCache(10**6)):
        cells = cells_of([png(1), lazy(png(1)), None], cache=cache)
        bad = find_bad_images(cells)
        assert list(bad) == [0, 1]
        assert all("cannot be decoded" in reason for reason in bad.values())


class OutOfTime(Exception):
    """A worker's own."""


@pytest.mark.parametrize("error", [OutOfTime, TimeoutError])
def test_a_workers_time_limit_is_no_reason(error, monkeypatch):
    failing(monkeypatch, error)
    for cache in (None, ByteCache(10**6)):
        cells = cells_of([png(1)], cache=cache)
        with pytest.raises(error):
            cells.read(0)
    with pytest.raises(error):
        settle(rows_of([lazy(png(1))]))


@pytest.mark.parametrize("format", ["EPS", "WMF"])
@pytest.mark.parametrize("cache", [None, ByteCache(10**6)])
def test_open_pictures_that_start_a_program_are_bad(format, cache, monkeypatch):
    def start(*args, **kwargs):
        raise AssertionError("a program was started")

    picture = lazy(png(5))
    picture.format = format
    monkeypatch.setattr(picture, "load", start)
    monkeypatch.setattr(picture, "tobytes", start)
    with pytest.raises(BadImage, match=f"{format} pictures are never rendered"):
        image_key(picture, None, TRANSFORM)
    cells = cells_of([picture, pixels(1)], cache=cache)  # settles
    assert f"{format} pictures are never rendered" in cells.read(0)[2]
    assert cells.read(1)[2] is None


def test_open_postscript_starts_nothing(monkeypatch):
    def start(*args, **kwargs):
        started.append(args)
        raise OSError("no program may be started")

    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    monkeypatch.setattr(subprocess, "Popen", start)
    stream = io.BytesIO()
    Image.fromarray(pixels(5)).save(stream, "EPS")
    for cache in (None, ByteCache(10**6)):
        cells = cells_of([lazy(stream.getvalue())] * 2, cache=cache)
        assert set(find_bad_images(cells)) == {0, 1}
    assert started == []


# -------------------------------------------------------------------------------- keys


def key(cell, root=None, transform=TRANSFORM):
    return image_key(cell, root, transform)


def picture(colour="red", mode="RGB"):
    return Image.new(mode, (5, 4), colour)


def test_equal_content_has_equal_keys(tmp_path):
    assert key(picture()) == key(picture())
    assert key(b"abc") == key(b"abc") != key(b"abd")
    array = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    assert key(array) == key(array.copy()) == key(np.asfortranarray(array))
    picture().save(tmp_path / "a.png")
    assert key("a.png", tmp_path) == key("a.png", str(tmp_path))
    assert key("a.png", tmp_path) == key(str(tmp_path / "a.png"))


def test_different_content_has_different_keys():
    array = np.arange(60, dtype=np.uint8)
    turned = picture()
    turned.getexif()[0x0112] = 6
    see_through = picture()
    see_through.info["transparency"] = (255, 0, 0)
    palettes = [picture(0, "P"), picture(0, "P")]
    palettes[1].putpalette([9, 9, 9])
    cells = [
        picture(),
        picture("blue"),
        turned,
        see_through,
        *palettes,
        picture(0, "L"),
        Image.new("RGB", (4, 5), "red"),
        array.reshape(5, 4, 3),
        array.reshape(4, 5, 3),
        array.reshape(20, 3),
        array.tobytes(),
    ]
    assert len({key(cell) for cell in cells}) == len(cells)


def test_the_transform_is_part_of_the_key():
    assert key(picture()) != key(picture(), None, ImageTransform(size=(8, 9)))
    same_pixels = ImageTransform(size=(8, 8), mean=(0.0,) * 3)
    assert key(picture()) == key(picture(), None, same_pixels)


def test_a_changed_file_has_another_key(tmp_path):
    path = tmp_path / "a.png"
    picture().save(path)
    first = key(path)
    os.utime(path, ns=(0, 0))
    second = key(path)
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(0, 0))
    assert len({first, second, key(path)}) == 3


def test_links_share_the_key_of_their_file(tmp_path):
    picture().save(tmp_path / "a.png")
    (tmp_path / "link").symlink_to("a.png")
    assert key(tmp_path / "link") == key(tmp_path / "a.png")


def test_bad_cells_have_no_key(tmp_path):
    for path in ("http://example.org/a.png", tmp_path, tmp_path / "none.png", ""):
        with pytest.raises(BadImage):
            key(path)
    stream = io.BytesIO()
    Image.effect_noise((90, 90), 50).save(stream, "JPEG")
    with pytest.raises(BadImage, match="truncated"):
        key(Image.open(io.BytesIO(stream.getvalue()[:900])))
