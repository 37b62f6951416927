"""Who trains together, as far as one process can tell; tests/scale starts several."""

import threading

import pytest
import torch

from robustmm.training import processes
from robustmm.training.device import resolve_device
from robustmm.training.processes import (
    ALONE,
    Processes,
    current,
    fit_alone,
    is_launched,
    together,
)

TOLD = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
CPU = torch.device("cpu")


@pytest.fixture
def launched(monkeypatch):
    for name, value in TOLD.items():
        monkeypatch.setenv(name, value)
    # A worker of pytest-xdist's is nobody's child, but one of multiprocessing's is.
    monkeypatch.setattr(processes.multiprocessing, "parent_process", lambda: None)


def test_what_a_launcher_tells(launched, monkeypatch):
    assert is_launched()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not is_launched()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_PORT")
    assert not is_launched()


def test_who_trains_alone_all_the_same(launched, monkeypatch):
    with fit_alone():
        assert not is_launched()
    found = []
    thread = threading.Thread(target=lambda: found.append(is_launched()))
    thread.start()
    thread.join()
    assert found == [False]
    monkeypatch.setattr(processes, "may_start_workers", lambda: False)
    assert not is_launched()
    monkeypatch.setattr(processes, "may_start_workers", lambda: True)
    monkeypatch.setattr(processes.multiprocessing, "parent_process", lambda: 1)
    assert not is_launched()


def test_without_a_launcher_there_is_one_process():
    with together(CPU) as found:
        assert found is current() is ALONE
        assert (found.rank, found.size, found.is_first) == (0, 1, True)
        assert found.gather(3) == [3]
        assert found.from_first(lambda: 4) == 4
        found.refuse_others("rows", b"x")
        found.share_tensors([torch.ones(1)])


class Together(Processes):
    """One of two, of which the other says what was prepared."""

    def __init__(self, others, store):
        super().__init__(0, 2, store=store)
        self.others = others

    def gather(self, value):
        return [value, self.others]


class Store(dict):
    """Stands for that of a launcher."""

    def check(self, keys):
        return all(key in self for key in keys)

    def get(self, key):
        return self[key].encode()

    def set(self, key, value):
        self[key] = value


def test_other_rows_are_named():
    with pytest.raises(ValueError, match=r"must fit the same rows, .* ranks \[1\]"):
        Together(b"y", None).refuse_others("rows", b"x")


def lost(store):
    pair = Together(None, store)
    with pytest.raises(RuntimeError) as raised, pair._loss_named():
        raise RuntimeError("Connection closed by peer")
    return str(raised.value)


def test_a_loss_says_who_is_gone_and_what_to_do():
    message = lost(Store())
    assert "nothing is heard of rank 1" in message
    assert "With checkpoint_dir, the same fit goes on" in message
    assert message.endswith("Torch says: Connection closed by peer")
    left = Store({"/1": "OSError: no room left"})
    assert "rank 1 left it (OSError: no room left)" in lost(left)
    assert "although all are there" in lost(Store({"/1": ""}))
    assert "nothing is heard of rank 1" in lost(None)


def test_who_leaves_says_why():
    store = Store()
    Together(None, store).leave(KeyError("x"))
    assert store == {"/0": "KeyError: 'x'"}


@pytest.mark.parametrize(
    ("local", "expected"), [("0", "cuda:0"), ("3", "cuda:1"), ("", "cuda")]
)
def test_each_process_takes_a_card_of_its_own(local, expected, launched, monkeypatch):
    count = {"cuda": 2, "cpu": 1}.get
    monkeypatch.setattr("robustmm.training.device._count", lambda kind: count(kind, 0))
    monkeypatch.setenv("LOCAL_RANK", local)
    assert resolve_device("auto") == torch.device(expected)
    assert resolve_device("cpu") == CPU
