"""Files of published data sets: which one is taken, and what is said of absent ones."""

import json
import os
from pathlib import Path

import pytest

from robustmm.datasets._files import Origin, check_split, text_cell

ORIGIN = Origin("Tiny-DB", "https://example.org/tiny")


# Finding ----------------------------------------------------------------------------


def test_the_first_that_is_there_is_taken(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "c.json").touch()
    assert ORIGIN.find(tmp_path, "a", "b", "c.json") == tmp_path / "b"
    (tmp_path / "a").touch()
    assert ORIGIN.find(tmp_path, "a", "b", "c.json") == tmp_path / "a"


def test_what_is_absent_is_named_with_its_alternatives_and_origin(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        ORIGIN.find(tmp_path, "labels", "dataset")
    assert str(caught.value) == (
        f"Tiny-DB needs {tmp_path / 'labels'} (or dataset), which is not there. "
        "It comes from https://example.org/tiny."
    )
    with pytest.raises(FileNotFoundError, match=r"needs \S+labels, which is not"):
        ORIGIN.find(tmp_path, "labels")


def test_json_is_read_as_utf_8_whatever_the_locale(tmp_path):
    file = tmp_path / "facts.json"
    file.write_bytes(json.dumps({"title": "Amélie"}, ensure_ascii=False).encode())
    assert ORIGIN.read_json(file) == {"title": "Amélie"}
    with pytest.raises(FileNotFoundError, match=r"none\.json, which is not there"):
        ORIGIN.read_json(tmp_path / "none.json")


# Images -----------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    for name in ("a/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    return tmp_path


def test_images_are_strings_in_the_order_of_the_rows(pictures):
    paths = [pictures / name for name in ("b/2.jpg", "a/1.jpg", "b/2.jpg")]
    for mode in ("raise", "missing"):
        assert ORIGIN.image_cells(paths, mode) == [str(path) for path in paths]
    assert ORIGIN.image_cells([], "raise") == []


def test_images_that_are_not_there_are_missing_or_one_error(pictures):
    names = ("a/1.jpg", "a/9.jpg", "c/1.jpg", "a/9.jpg")
    paths = [pictures / name for name in names]
    cells = ORIGIN.image_cells(paths, "missing")
    assert cells == [str(paths[0]), None, None, None]
    message = rf"^2 images of Tiny-DB .* first is {paths[1]}\. They come from https"
    with pytest.raises(FileNotFoundError, match=message):
        ORIGIN.image_cells(paths, "raise")


def test_a_folder_is_listed_once_and_no_file_is_asked_for(pictures, monkeypatch):
    listed = []
    monkeypatch.setattr(os, "listdir", lambda f: listed.append(f) or ["1.jpg"])
    monkeypatch.setattr(Path, "exists", lambda self: pytest.fail("asked for a file"))
    paths = [pictures / "a" / f"{i}.jpg" for i in range(50)]
    assert ORIGIN.image_cells(paths, "missing").count(None) == 49
    assert listed == [pictures / "a"]


def test_another_choice_is_named_before_anything_is_listed():
    with pytest.raises(ValueError, match=r"\['raise', 'missing'\], got 'skip'"):
        ORIGIN.image_cells([Path("/nowhere/1.jpg")], "skip")


# Splits and texts -------------------------------------------------------------------


def test_splits_are_those_of_the_data_set():
    check_split("dev")
    check_split("val", ("train", "val"))
    with pytest.raises(ValueError, match=r"\['train', 'dev', 'test'\], got 'val'"):
        check_split("val")
    with pytest.raises(ValueError, match=r"\['train', 'val'\], got None"):
        check_split(None, ("train", "val"))


@pytest.mark.parametrize("nothing", ["", " \t\n", None, float("nan"), 3, ["a plot"]])
def test_a_text_that_says_nothing_is_missing(nothing):
    assert text_cell(nothing) is None


def test_a_text_is_kept_as_it_is():
    assert text_cell("  a plot. ") == "  a plot. "
