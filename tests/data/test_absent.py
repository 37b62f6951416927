"""One message for many absent files: when there is one, and what it advises."""

import os

import pytest

from robustmm.data import Rows
from robustmm.data import absent as module
from robustmm.data.absent import gather_absent
from robustmm.data.faults import NO_FILE

GONE = f"{NO_FILE}: 'x'"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with nothing around it."""
    folder = tmp_path / "around" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def rows_of(cells, root=None):
    return Rows(list(cells), [None] * len(cells), list(range(len(cells))), root)


def names(n):
    return [f"{i}.png" for i in range(n)]


def put(folder, n=4):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names(n):
        (folder / name).touch()


@pytest.mark.parametrize(
    ("n_absent", "n_rows", "gathered"),
    [(2, 2, False), (3, 3, True), (3, 6, True), (3, 7, False), (50, 60, True)],
)
def test_many_and_half_of_the_paths(n_absent, n_rows, gathered, here):
    bad = dict.fromkeys(range(n_absent), GONE)
    message, others = gather_absent(rows_of(names(n_rows)), bad)
    assert bool(message) == gathered
    assert others == ({} if gathered else bad)


def test_other_cells_do_not_count_and_other_faults_stay(here):
    cells = [*names(3), *[b"x"] * 20, None, "data:,x"]
    bad = {0: GONE, 2: GONE, 1: GONE, 5: "damaged"}
    message, others = gather_absent(rows_of(cells), bad)
    assert message.startswith("3 of 3 image paths lead to no file: row 0: '0.png'; ")
    assert others == {5: "damaged"}


def test_all_of_the_first_files_must_be_there(here):
    put(here / "some", 2)
    put(here / "all" / "of", 4)
    bad = dict.fromkeys(range(4), GONE)
    assert "image_root='all/of'" in gather_absent(rows_of(names(4)), bad)[0]


def test_hidden_folders_and_those_that_cannot_be_listed(here):
    put(here / ".cache")
    (here / "locked").mkdir(mode=0)
    bad = dict.fromkeys(range(4), GONE)
    message, _ = gather_absent(rows_of(names(4), here / "none"), bad)
    assert "pass image_root=, the folder" in message
    assert repr(str(here / "none")) in message


def test_a_root_far_away_is_named_in_full(here, tmp_path):
    far = tmp_path / "other" / "place"
    put(far / "posters")
    bad = dict.fromkeys(range(4), GONE)
    message, _ = gather_absent(rows_of(names(4), far), bad)
    assert f"image_root={str(far / 'posters')!r}" in message


def test_few_folders_are_looked_into(here, monkeypatch):
    for i in range(30):
        (here / f"folder {i}").mkdir()
    monkeypatch.setattr(module, "_MOST_FOLDERS", 7)
    seen = []
    monkeypatch.setattr(module.os.path, "isfile", lambda path: seen.append(path))
    gather_absent(rows_of(names(4)), dict.fromkeys(range(4), GONE))
    assert len(seen) == 7


@pytest.mark.parametrize(
    "cell", ["a\0b.png", "x" * 5000, "../" * 50 + "a", "http://a/b"]
)
def test_hostile_paths(cell, here):
    put(here / "posters")
    bad = dict.fromkeys(range(3), GONE)
    message, _ = gather_absent(rows_of([cell] * 3), bad)
    assert len(message) < 1000


def test_long_paths_are_cut(here):
    cells = [os.path.join("a" * 200, "b" * 3000)] * 3
    message, _ = gather_absent(rows_of(cells), dict.fromkeys(range(3), GONE))
    assert len(message) < 1000
