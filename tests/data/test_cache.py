"""The cache stays in its budget; its keys follow the content of a cell."""

import io
import os
import pickle
import threading

import numpy as np
import pytest
from PIL import Image

from robustmm.data.cache import IMAGES, STATES, ByteCache
from robustmm.data.decode import BadImage
from robustmm.data.images import image_key
from robustmm.data.preprocess import ImageTransform

TRANSFORM = ImageTransform(size=(4, 4))


def block(size, value=0):
    return np.full(size, value, dtype=np.uint8)


def key(cell, root=None, transform=TRANSFORM):
    return image_key(cell, root, transform)


def test_get_and_put():
    cache = ByteCache(100)
    assert cache.get(b"a") is None
    cache.put(b"a", block(10, 7))
    np.testing.assert_array_equal(cache.get(b"a"), block(10, 7))
    assert (len(cache), cache.nbytes) == (1, 10)
    cache.clear()
    assert (len(cache), cache.nbytes, cache.get(b"a")) == (0, 0, None)


def test_the_least_recently_used_goes_first():
    cache = ByteCache(30)
    for name in (b"a", b"b", b"c"):
        cache.put(name, block(10))
    cache.get(b"a")
    cache.put(b"d", block(10))
    assert [cache.get(name) is not None for name in (b"a", b"b", b"c", b"d")] == [
        True,
        False,
        True,
        True,
    ]


def test_the_budget_is_never_exceeded():
    cache = ByteCache(1000)
    sizes = np.random.default_rng(0).integers(1, 400, 200)
    for i, size in enumerate(sizes):
        cache.put(bytes([i % 50]), block(size))
        assert cache.nbytes <= 1000
        assert cache.nbytes == sum(held.nbytes for held in cache._arrays.values())
    assert cache.nbytes > 500


def test_replacing_counts_once():
    cache = ByteCache(100)
    cache.put(b"a", block(60))
    cache.put(b"a", block(70, 1))
    assert (len(cache), cache.nbytes) == (1, 70)
    assert cache.get(b"a")[0] == 1


def test_too_large_for_the_budget_is_not_held():
    cache = ByteCache(100)
    cache.put(b"a", block(60))
    cache.put(b"b", block(101))
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None
    cache.put(b"a", block(101))  # must not leave the old content behind
    assert cache.get(b"a") is None
    nothing = ByteCache(0)
    nothing.put(b"a", block(1))
    assert len(nothing) == 0


def test_what_is_held_cannot_be_changed():
    cache, mine = ByteCache(100), block(10)
    cache.put(b"a", mine)
    with pytest.raises(ValueError, match="read-only"):
        cache.get(b"a")[0] = 1
    assert mine.flags.writeable


def test_negative_budget():
    with pytest.raises(ValueError, match="max_bytes must be 0 or more, got -1"):
        ByteCache(-1)


def test_threads():
    cache, failures = ByteCache(5000), []

    def work(seed):
        for i in np.random.default_rng(seed).integers(0, 100, 500):
            cache.put(bytes([i]), block(100, i))
            found = cache.get(bytes([i]))
            if found is not None and (found != i).any():
                failures.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert cache.nbytes == 100 * len(cache) <= 5000


def test_pickle_carries_the_budget_only():
    cache = ByteCache(100)
    cache.put(b"a", block(60))
    opened = pickle.loads(pickle.dumps(cache))
    assert (opened.max_bytes, len(opened), opened.nbytes) == (100, 0, 0)
    opened.put(b"a", block(60))
    assert pickle.loads(pickle.dumps(IMAGES)) is IMAGES
    assert pickle.loads(pickle.dumps(STATES)) is STATES
    assert (IMAGES.max_bytes, STATES.max_bytes) == (2**30, 2**31)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_worker_does_not_inherit_a_held_lock():
    with IMAGES._lock:
        child = os.fork()
        if child == 0:
            free = IMAGES._lock.acquire(timeout=5)
            os._exit(0 if free else 1)
        assert os.waitpid(child, 0)[1] == 0


# ------------------------------------------------------------------------------- keys


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
    assert key(picture()) != key(picture(), None, ImageTransform(size=(4, 5)))
    same_pixels = ImageTransform(size=(4, 4), mean=(0.0,) * 3)
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
