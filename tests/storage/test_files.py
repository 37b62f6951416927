"""Files that are as they were or complete, and locks between processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robustmm.storage import files
from robustmm.storage.files import (
    locked,
    opened,
    read_bytes,
    replace_bytes,
    sync_folder,
    write_bytes,
)

# Processes run the file alone: the whole package takes seconds to import.
WRITER = """
import pathlib, runpy, sys
replace_bytes = runpy.run_path(sys.argv[1])["replace_bytes"]
path, i = pathlib.Path(sys.argv[2]), 0
while True:
    i += 1
    replace_bytes(path, b"%d" % (i % 10) * 200_000)
"""
WAITER = """
import pathlib, runpy, sys
locked = runpy.run_path(sys.argv.pop(1))["locked"]
folder = pathlib.Path(sys.argv[1])
print("asks", flush=True)
with locked(folder):
    (folder / "order").open("a").write(sys.argv[2])
    if sys.argv[3:]:
        print("holds", flush=True)
        sys.stdin.read()
"""
posix = pytest.mark.skipif(os.name != "posix", reason="no locks of this kind")


def names(folder):
    return sorted(file.name for file in folder.iterdir())


# Writing ----------------------------------------------------------------------------


def test_bytes_are_written_and_waited_for(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda d: synced.append(os.fstat(d).st_size))
    write_bytes(tmp_path / "a", b"12345")
    assert (tmp_path / "a").read_bytes() == b"12345"
    assert synced == [5]  # flushed before, or the disk would have nothing to wait for


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    for data in (b"first", b"", b"third" * 1000):
        replace_bytes(tmp_path / "a.json", data)
        assert (tmp_path / "a.json").read_bytes() == data
        assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, step, error):
    replace_bytes(tmp_path / "a.json", b"old")

    def fail(path, *args):
        if step == "write_bytes":
            Path(path).write_bytes(b"ha")
        raise error

    monkeypatch.setattr(files if step == "write_bytes" else os, step, fail)
    with pytest.raises(type(error)):
        replace_bytes(tmp_path / "a.json", b"new")
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"old"


def test_what_a_reader_has_open_stays_whole(tmp_path):
    replace_bytes(tmp_path / "a", b"old" * 1000)
    with (tmp_path / "a").open("rb") as reader:
        start = reader.read(3)
        replace_bytes(tmp_path / "a", b"new")
        assert start + reader.read() == b"old" * 1000


def test_temporary_names_differ_from_call_to_call(tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(os, "replace", lambda a, b: used.append(Path(a).name))
    for _ in range(5):
        replace_bytes(tmp_path / "a.json", b"x")
    assert len(set(used)) == 5
    assert all(name.startswith(".a.json.") for name in used)


def test_a_killed_writer_leaves_the_old_or_the_new(tmp_path):
    file = tmp_path / "a"
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, files.__file__, str(file)]
        )
        deadline = time.monotonic() + 60
        before = file.read_bytes() if file.exists() else None
        while (file.read_bytes() if file.exists() else None) == before:
            assert time.monotonic() < deadline
        writer.kill()
        writer.wait()
        data = file.read_bytes()
        assert len(data) == 200_000
        assert len(set(data)) == 1


@posix
def test_the_folder_is_synced_after_the_name_is_in_it(tmp_path, monkeypatch):
    steps, replace, fsync = [], os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *a: steps.append("name") or replace(*a))
    monkeypatch.setattr(os, "fsync", lambda d: steps.append("disk") or fsync(d))
    replace_bytes(tmp_path / "a", b"x")
    assert steps == ["disk", "name", "disk"]


@posix
def test_syncing_and_locking_leave_no_descriptor_open(tmp_path):
    descriptors = len(os.listdir("/dev/fd"))
    sync_folder(tmp_path)
    with locked(tmp_path):
        pass
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "nowhere")
    assert len(os.listdir("/dev/fd")) == descriptors


# Locks ------------------------------------------------------------------------------


def wait_in_another_process(folder, word, *hold):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITER, files.__file__, str(folder), word, *hold],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "asks\n"
    return process


@posix
def test_another_process_waits_until_the_block_is_left(tmp_path):
    with locked(tmp_path):
        other = wait_in_another_process(tmp_path, "second")
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=0.3)
        (tmp_path / "order").write_text("first ")
    assert other.wait(timeout=60) == 0
    assert (tmp_path / "order").read_text() == "first second"
    assert other.communicate() == ("", None)


@posix
def test_a_killed_process_keeps_nobody_waiting(tmp_path):
    holder = wait_in_another_process(tmp_path, "held", "until killed")
    assert holder.stdout.readline() == "holds\n"
    holder.kill()
    holder.communicate()
    with locked(tmp_path):
        assert names(tmp_path) in ([], ["order"])  # a lock is no file


@posix
def test_folders_are_locked_one_by_one(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    with locked(tmp_path / "a"), locked(tmp_path / "b"):
        pass


def test_where_there_are_no_locks_the_block_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "name", "nt")
    with locked(tmp_path / "nowhere"):
        (tmp_path / "done").touch()
    sync_folder(tmp_path / "nowhere")
    monkeypatch.undo()
    assert names(tmp_path) == ["done"]


# Reading ----------------------------------------------------------------------------

KINDS = ["absent", "folder", "link", "dangling", "fifo", "device", "under a file"]


def place(folder, kind):
    path = folder / "name"
    (folder / "target").write_bytes(b"content")
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(folder / "target")
    elif kind == "dangling":
        path.symlink_to(folder / "nowhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = "/dev/zero"
    elif kind == "under a file":
        path = folder / "target" / "name"
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused(tmp_path, kind):
    path = place(tmp_path, kind)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="must be a file, and"), opened(path):
        pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_is_read_up_to_a_size(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert read_bytes(tmp_path / "file", 7) == b"content"
    with pytest.raises(ValueError, match="at most 6 bytes, got 7"):
        read_bytes(tmp_path / "file", 6)
    os.truncate(tmp_path / "file", 2**40)  # takes no room on the disk
    with pytest.raises(ValueError, match="got 1099511627776"):
        read_bytes(tmp_path / "file", 2**24)
