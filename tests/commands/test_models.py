"""Saved models as commands open them."""

import argparse

import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from robustmm.commands import models
from robustmm.commands.models import (
    check_new_model,
    columns_of,
    for_model,
    image_root,
    is_plain,
    open_model,
    patterns_of,
    several_labels,
    silent_about_empty_rows,
)


def command(shop, **words):
    words = {"image_root": None, "on_bad_image": None, "device": "cpu"} | words
    return argparse.Namespace(table=str(shop / "table.csv"), quiet=True, **words)


def test_a_model_is_silent_and_keeps_no_images(model, shop):
    opened = open_model(command(shop, model=model))
    assert (opened.verbose, opened.cache, opened.on_bad_image) == (0, None, "raise")
    opened = open_model(command(shop, model=model, on_bad_image="missing"))
    assert opened.on_bad_image == "missing"


def test_paths_start_beside_the_table_or_where_asked(shop):
    assert image_root(command(shop)) == str(shop)
    assert image_root(command(shop, image_root="/a")) == "/a"


def test_only_paths_get_a_root(opened):
    cells = ["a.png", "/b.png", None, b"x", "data:image/png;base64,", "http://c", " "]
    X = pd.DataFrame({"image": cells, "text": None}, dtype=object)
    expected = ["/r/a.png", *cells[1:]]
    assert for_model(opened, X, "/r")["image"].tolist() == expected
    assert X["image"].tolist() == cells


def test_paths_get_a_root_wherever_in_a_model_they_are_read(opened):
    X = pd.DataFrame({"image": ["a.png"], "text": ["a"], "price": [1]})
    found = for_model(make_pipeline(opened), X, "/r")
    assert found.to_dict("list") == {"image": ["/r/a.png"], "text": ["a"], "price": [1]}


def test_members_of_an_ensemble_keep_no_images_either(opened, monkeypatch, shop):
    member, words = clone(opened), object()
    opened.members_ = [("probe", member)]
    monkeypatch.setattr(models.robustmm, "load", lambda path, device: opened)
    open_model(command(shop, model=words))
    assert (member.cache, member.verbose) == (None, 0)


def test_a_pipeline_reads_all_columns(opened):
    pipeline = make_pipeline(opened)
    X = pd.DataFrame({"text": ["a"], "image": [None], "price": [1]})
    assert is_plain(opened)
    assert not is_plain(pipeline)
    assert for_model(opened, X, "").columns.tolist() == ["image", "text"]
    assert for_model(pipeline, X, "").columns.tolist() == X.columns.tolist()
    assert columns_of(opened) == ["image", "text"]
    assert patterns_of(pipeline, X) == {}
    assert patterns_of(opened, X)["image_missing"] == 1


def test_whether_rows_have_several_labels(opened, model_of_tags, shop, table):
    of_tags = open_model(command(shop, model=model_of_tags))
    X = for_model(opened, table, str(shop))
    assert not several_labels(opened, X)
    assert several_labels(of_tags, X)


def test_empty_rows_are_not_warned_of_and_all_else_is(opened):
    X = pd.DataFrame({"image": [None], "text": [None]})
    with silent_about_empty_rows():
        opened.predict(X)
    with pytest.warns(UserWarning, match="1 of 1 rows have neither"):
        opened.predict(X)


def test_a_folder_with_anything_in_it_is_not_replaced_unasked(tmp_path):
    check_new_model(tmp_path, force=False)
    check_new_model(tmp_path / "new", force=False)
    (tmp_path / "file").touch()
    check_new_model(tmp_path, force=True)
    with pytest.raises(ValueError, match="--force replaces a saved model"):
        check_new_model(tmp_path, force=False)
