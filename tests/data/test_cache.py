"""Caches stay in their budgets, in memory and as files that are never half written."""

import os
import pickle
import signal
import threading
from contextlib import suppress

import numpy as np
import pytest

from robustmm.data.cache import (
    IMAGES,
    STATES,
    ByteCache,
    FolderCache,
    holding,
    open_cache,
)


def block(size, value=0):
    return np.full(size, value, dtype=np.uint8)


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


def test_a_lower_budget_holds_from_the_next_array_on():
    cache = ByteCache(200)
    cache.put(b"a", block(60))
    cache.put(b"b", block(60))
    cache.max_bytes = 130
    cache.put(b"c", block(60))
    assert cache.get(b"a") is None
    assert cache.nbytes == 120


# -------------------------------------------------------------- blocks that hold


def hits_of_epochs(cache, n, n_epochs=4):
    """Parts of shuffled epochs over n arrays of 10 bytes that were found."""
    random, rates = np.random.default_rng(0), []
    for _ in range(n_epochs):
        found = 0
        for i in random.permutation(n):
            key = int(i).to_bytes(2)
            if cache.get(key) is None:
                cache.put(key, block(10))
            else:
                found += 1
        rates.append(found / n)
    return rates


@pytest.mark.parametrize("part", [0.25, 0.8, 1.0])
def test_what_fits_is_found_in_every_epoch_of_a_block(part):
    cache = ByteCache(int(part * 4000))
    with cache.holding():
        first, *later = hits_of_epochs(cache, 400)
    assert first == 0
    assert later == [part] * 3
    if part == 0.8:  # what dropping the least recently used comes to
        assert max(hits_of_epochs(ByteCache(3200), 400)) < 0.6


def test_a_block_drops_what_was_not_used_since_it_began():
    cache = ByteCache(30)
    with cache.holding():
        for name in (b"a", b"b", b"c", b"d"):
            cache.put(name, block(10))
        assert cache.is_full
    assert not cache.is_full
    assert [name in cache for name in (b"a", b"b", b"c", b"d")] == [True] * 3 + [False]
    with cache.holding():
        assert b"b" in cache
        assert not cache.is_full
        for name in (b"d", b"e", b"f"):
            cache.put(name, block(10))
    assert [name in cache for name in (b"a", b"b", b"c")] == [False, True, False]
    assert [name in cache for name in (b"d", b"e", b"f")] == [True, True, False]


def test_the_block_that_began_first_decides():
    cache = ByteCache(20)
    with cache.holding():
        cache.put(b"a", block(10))
        with cache.holding():
            cache.put(b"b", block(10))
            cache.put(b"c", block(10))
        cache.put(b"d", block(10))
    assert [name in cache for name in (b"a", b"b", b"c", b"d")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_block_that_fails_ends():
    cache = ByteCache(10)
    with suppress(KeyError), holding(cache, None, cache):
        cache.put(b"a", block(10))
        raise KeyError
    cache.put(b"b", block(10))
    assert (b"a" in cache, b"b" in cache) == (False, True)


def test_a_cache_of_no_bytes_is_full_from_the_first_array_on():
    cache = ByteCache(0)
    with cache.holding():
        cache.put(b"a", block(1))
        assert cache.is_full


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
    with IMAGES._lock.held():
        child = os.fork()
        if child == 0:
            signal.alarm(5)  # ends a child that waits
            IMAGES.put(b"in a child", block(1))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


# ---------------------------------------------------------------------------- folders


def numbers(n, start=0):
    return np.arange(start, start + n, dtype=np.float32)


def test_another_process_finds_the_array(tmp_path):
    FolderCache(tmp_path).put(b"key", numbers(6).reshape(2, 3))
    found = pickle.loads(pickle.dumps(FolderCache(tmp_path))).get(b"key")
    # Read, not mapped: a mapped file that is cut would end this process.
    os.truncate(next(tmp_path.rglob("*.npy")), 0)
    np.testing.assert_array_equal(found, numbers(6).reshape(2, 3))
    assert not found.flags.writeable
    assert FolderCache(tmp_path).get(b"other") is None


def test_the_oldest_go_when_the_budget_is_spent(tmp_path):
    cache = FolderCache(tmp_path, max_bytes=3000)
    for i in range(4):
        cache.put(bytes([i]), numbers(100, i))
        age = 1_000_000 * (i + 1)
        os.utime(next(tmp_path.glob(f"0{i}/*.npy")), ns=(age, age))
    cache.get(b"\x00")
    for i in range(4, 7):
        cache.put(bytes([i]), numbers(100, i))
    assert cache.nbytes <= 3000
    assert cache.get(b"\x01") is None
    np.testing.assert_array_equal(cache.get(b"\x00"), numbers(100))
    np.testing.assert_array_equal(cache.get(b"\x06"), numbers(100, 6))


def test_an_array_over_the_budget_is_not_kept(tmp_path):
    cache = FolderCache(tmp_path, max_bytes=10)
    cache.put(b"key", numbers(100))
    assert cache.get(b"key") is None
    assert len(cache) == 0


def test_a_damaged_file_counts_as_absent_and_is_replaced(tmp_path):
    cache = FolderCache(tmp_path)
    for damage in (b"", b"not an array", b"\x93NUMPY\x01\x00"):
        cache.put(b"key", numbers(3))
        next(tmp_path.rglob("*.npy")).write_bytes(damage)
        assert cache.get(b"key") is None
    cache.put(b"key", numbers(3))
    np.testing.assert_array_equal(cache.get(b"key"), numbers(3))


def test_a_failed_write_is_logged_and_leaves_nothing(tmp_path, monkeypatch, caplog):
    cache = FolderCache(tmp_path)

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", full)
    cache.put(b"key", numbers(3))
    assert "No space left" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_threads_may_write_the_same_key(tmp_path):
    cache = FolderCache(tmp_path, max_bytes=5000)

    def write(seed):
        for i in range(20):
            cache.put(bytes([i % 7]), numbers(100, i % 7))
            found = cache.get(bytes([i % 7]))
            assert found is None or found[0] == i % 7

    failures = []
    threads = [threading.Thread(target=write, args=(s,)) for s in range(4)]
    threading.excepthook, hook = failures.append, threading.excepthook
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = hook
    assert failures == []
    assert not list(tmp_path.rglob("*.tmp"))


def test_clear_deletes_only_its_own_files(tmp_path):
    (tmp_path / "mine.npy").write_bytes(b"")
    cache = FolderCache(tmp_path)
    cache.put(b"key", numbers(3))
    cache.clear()
    assert len(cache) == 0
    assert (tmp_path / "mine.npy").exists()


def test_the_folder_must_exist(tmp_path):
    with pytest.raises(ValueError, match=r"must exist, got .*nowhere"):
        FolderCache(tmp_path / "nowhere")


def test_what_the_parameter_means(tmp_path):
    assert open_cache(None, IMAGES) is None
    assert open_cache("memory", IMAGES) is IMAGES
    of_folder = open_cache(tmp_path, IMAGES)
    assert isinstance(of_folder, FolderCache)
    assert of_folder is open_cache(str(tmp_path), ByteCache(1))


def test_a_folder_that_is_gone_keeps_nothing(tmp_path, caplog):
    assert open_cache(tmp_path / "gone", IMAGES) is None
    assert "there is no folder" in caplog.text
