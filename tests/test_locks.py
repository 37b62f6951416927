"""A forked child goes on where another thread of its parent held a lock."""

import multiprocessing
import threading

import pytest

from robustmm.locks import ForkSafeLock

LOCK, REENTRANT = ForkSafeLock(), ForkSafeLock(reentrant=True)


def take(lock):
    with lock.held():
        pass


def is_open(lock):
    """Whether another thread could take the lock at once."""
    thread = threading.Thread(target=take, args=(lock,), daemon=True)
    thread.start()
    thread.join(0.2)
    return not thread.is_alive()


@pytest.mark.parametrize("lock", [LOCK, REENTRANT], ids=["plain", "reentrant"])
def test_one_thread_holds_it(lock):
    with lock.held():
        assert not is_open(lock)
    assert is_open(lock)


def test_a_reentrant_one_is_taken_twice_by_its_thread():
    with REENTRANT.held(), REENTRANT.held():
        pass


@pytest.mark.parametrize("lock", [LOCK, REENTRANT], ids=["plain", "reentrant"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_finds_it_open(lock):
    held, done = threading.Event(), threading.Event()

    def hold():
        with lock.held():
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    child = multiprocessing.get_context("fork").Process(target=take, args=(lock,))
    child.start()
    child.join(30)
    done.set()
    thread.join()
    assert child.exitcode == 0
