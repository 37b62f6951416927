"""A folder keeps what fits while a block holds it; its budget holds in any case."""

import os

import numpy as np
import pytest

from robustmm.data.folder_cache import FolderCache

ARRAY = np.arange(100, dtype=np.uint8)
FILE = 128 + 100 + 4


def key(i):
    return int(i).to_bytes(2)


def epoch(cache, n, random):
    found = 0
    for i in random.permutation(n):
        if cache.get(key(i)) is None:
            cache.put(key(i), ARRAY)
        else:
            found += 1
    return found / n


@pytest.mark.parametrize("part", [0.25, 0.8])
def test_what_fits_is_found_in_every_epoch_of_a_block(tmp_path, part):
    cache, random = FolderCache(tmp_path, int(part * 40 * FILE)), None
    random = np.random.default_rng(0)
    with cache.holding():
        first, *later = [epoch(cache, 40, random) for _ in range(3)]
    assert first == 0
    assert later == [part] * 2
    assert cache.nbytes <= cache.max_bytes


def test_a_full_folder_is_not_listed_for_every_array(tmp_path, monkeypatch):
    cache, listed = FolderCache(tmp_path, 3 * FILE), []
    original = FolderCache._files
    monkeypatch.setattr(
        FolderCache, "_files", lambda self: listed.append(1) or original(self)
    )
    with cache.holding():
        for i in range(50):
            cache.put(key(i), ARRAY)
        assert cache.is_full
    assert len(listed) == 2  # what is there, and what may go
    assert not cache.is_full


def test_a_block_drops_what_was_not_used_since_it_began(tmp_path):
    cache = FolderCache(tmp_path, 4 * FILE)
    with cache.holding():
        for i in range(5):
            cache.put(key(i), ARRAY)
    with cache.holding():
        assert key(1) in cache
        for i in range(5, 9):
            cache.put(key(i), ARRAY)
    held = [key(i) in cache for i in range(9)]
    assert held == [False, True, False, False, False, True, True, True, False]
    assert cache.nbytes <= cache.max_bytes


def test_without_a_block_the_oldest_go(tmp_path):
    cache = FolderCache(tmp_path, 3 * FILE)
    for i in range(9):
        cache.put(key(i), ARRAY)
    assert key(8) in cache
    assert cache.nbytes <= cache.max_bytes


def test_no_file_outside_is_looked_at_or_aged(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "cache"
    outside.mkdir()
    folder.mkdir()
    cache = FolderCache(folder)
    cache.put(key(1), ARRAY)
    (file,) = folder.glob("*/*.npy")
    (outside / file.name).write_bytes(file.read_bytes())
    os.utime(outside / file.name, ns=(7, 7))
    file.unlink()
    file.symlink_to(outside / file.name)
    assert key(1) not in cache
    assert cache.get(key(1)) is None
    file.unlink()
    file.parent.rmdir()
    file.parent.symlink_to(outside)
    assert key(1) not in cache
    assert cache.get(key(1)) is None
    assert os.stat(outside / file.name).st_mtime_ns == 7
