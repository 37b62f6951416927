"""Files of a cache's folder that others have changed: as absent, and said once."""

import io
import os
import zipfile
import zlib

import numpy as np
import pytest

from robustmm.data import FolderCache, ImageTransform, MultimodalDataset, Rows

KEY = b"\x07key"
STATES = np.arange(12, dtype=np.float32).reshape(3, 4)


def file_of(folder):
    (file,) = folder.glob("*/*.npy")
    return file


def saved(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def sealed(content, key=KEY):
    """Content with the sum that a file of the cache ends with: a forgery."""
    return content + zlib.crc32(content, zlib.crc32(key)).to_bytes(4, "little")


def archive():
    stream = io.BytesIO()
    np.savez(stream, a=STATES)
    return stream.getvalue()


def compressed(n_bytes):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("arr_0.npy", bytes(n_bytes))
    return stream.getvalue()


class Trap:
    def __reduce__(self):
        return os.abort, ()


WHOLE = saved(STATES)
HUGE = saved(np.zeros(1)).replace(b"(1,)", b"(10000000000000,)")
NAN = STATES.copy()
NAN[1, 2] = np.nan
POISON = {
    "empty": b"",
    "one byte": b"x",
    "text": b"not an array",
    "half": sealed(WHOLE)[:90],
    "cut": sealed(WHOLE)[:-7],
    "longer": sealed(WHOLE) + b"x",
    "without a sum": WHOLE,
    "of another key": sealed(WHOLE, b"other"),
    "a changed number": sealed(WHOLE).replace(b"\x00\x00\x80\x3f", b"\x00\x00\x80\x40"),
    "an archive": archive(),
    "a sealed archive": sealed(archive()),
    "a bomb": compressed(10**8),
    "a sealed bomb": sealed(compressed(10**8)),
    "a pickle": saved(np.array([Trap()], dtype=object)),
    "a sealed pickle": sealed(saved(np.array([Trap()], dtype=object))),
    "sealed text": sealed(b"not an array"),
    "sealed nothing": sealed(b""),
    "a sealed header": sealed(WHOLE[:128]),
    "too many numbers": sealed(HUGE),
    "a sealed row less": sealed(WHOLE[:-16]),
    "sealed NaN": sealed(saved(NAN)),
    "sealed infinity": sealed(saved(np.array([np.inf], np.float16))),
    "sealed text array": sealed(saved(np.array(["a", "b"]))),
    "sealed times": sealed(saved(np.array([0], "M8[s]"))),
    "sealed records": sealed(saved(np.zeros(2, "i4,f4"))),
    "sealed complex": sealed(saved(np.array([1j]))),
    "another version": sealed(WHOLE[:6] + b"\x03" + WHOLE[7:]),
    "a header that is code": sealed(WHOLE.replace(b"False", b"exit(")),
}


@pytest.mark.parametrize("name", POISON)
def test_a_poisoned_file_counts_as_absent(tmp_path, caplog, name):
    cache = FolderCache(tmp_path)
    for _ in range(2):
        cache.put(KEY, STATES)
        file_of(tmp_path).write_bytes(POISON[name])
        assert cache.get(KEY) is None
    (record,) = caplog.records
    assert "is computed anew where a file is no array of this cache" in record.message
    cache.put(KEY, STATES)
    np.testing.assert_array_equal(cache.get(KEY), STATES)


PLACES = ["folder", "full folder", "link", "dangling", "loop", "fifo", "sparse"]


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_counts_as_absent(tmp_path, place, caplog):
    cache, elsewhere = FolderCache(tmp_path / "."), tmp_path / "elsewhere"
    cache.put(KEY, STATES)
    file = file_of(tmp_path)
    file.rename(elsewhere)
    if place.endswith("folder"):
        file.mkdir()
        (file / "inside").mkdir() if place == "full folder" else None
    elif place == "fifo":
        os.mkfifo(file)
    elif place == "sparse":
        file.touch()
        os.truncate(file, 2**40)
    else:
        targets = {"link": elsewhere, "dangling": tmp_path / "nowhere", "loop": file}
        file.symlink_to(targets[place])
    before = elsewhere.read_bytes()
    assert cache.get(KEY) is None
    for _ in range(2):
        cache.put(KEY, STATES)
    found = cache.get(KEY)
    assert found is None if place.endswith("folder") else np.array_equal(found, STATES)
    assert elsewhere.read_bytes() == before
    assert len(caplog.records) <= 2
    cache.clear()
    assert elsewhere.exists()


def test_a_linked_subfolder_is_not_written_read_or_emptied(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "cache"
    outside.mkdir()
    folder.mkdir()
    FolderCache(folder).put(KEY, STATES)
    inside = file_of(folder)
    (outside / inside.name).write_bytes(inside.read_bytes())
    (outside / "mine.npy").write_bytes(b"precious")
    inside.unlink()
    inside.parent.rmdir()
    inside.parent.symlink_to(outside)
    cache = FolderCache(folder, max_bytes=1000)
    assert cache.get(KEY) is None
    (outside / inside.name).unlink()
    for i in range(9):
        cache.put(KEY[:1] + bytes([i]), STATES)
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)
    assert [file.name for file in outside.iterdir()] == ["mine.npy"]


def test_states_that_are_not_finite_are_not_kept(tmp_path):
    cache = FolderCache(tmp_path)
    cache.put(KEY, NAN)
    assert len(cache) == 0


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "f4", "f2", "?", "i8", ">i4"])
@pytest.mark.parametrize("shape", [(), (0, 3), (3,), (3, 4, 3)])
def test_any_array_of_numbers_comes_back(tmp_path, dtype, shape, order):
    array = np.asarray(np.ones(shape, dtype), order=order)
    FolderCache(tmp_path).put(KEY, array)
    found = FolderCache(tmp_path).get(KEY)
    np.testing.assert_array_equal(found, array)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)


FORGED = [
    np.zeros((8, 8, 3), np.float32),
    np.zeros((8, 8), np.uint8),
    np.zeros((8, 8, 4), np.uint8),
    np.zeros((9, 8, 3), np.uint8),
    np.zeros((0, 8, 3), np.uint8),
]


@pytest.mark.parametrize("array", FORGED, ids=lambda a: f"{a.dtype}{a.shape}")
def test_an_image_of_a_wrong_kind_is_decoded_anew(tmp_path, array):
    cache = FolderCache(tmp_path)
    rows = Rows([np.full((9, 9, 3), 7, np.uint8)], ["a"], [0])
    data = MultimodalDataset(rows, ImageTransform(size=(8, 8)), None, cache=cache)
    expected = data[0][0]["image"]
    key = bytes.fromhex(file_of(tmp_path).stem)
    cache.put(key, array)
    np.testing.assert_array_equal(data[0][0]["image"], expected)
    np.testing.assert_array_equal(cache.get(key), expected)
