"""Only files are opened as files, and nothing waits for ever."""

import os

import pytest

from robustmm.storage.files import opened, read_bytes

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
