"""Saved models as commands open them."""

import argparse

import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from robustmm import LinearProbeClassifier
from robustmm.commands.models import (
    check_new_model,
    columns_of,
    for_model,
    in_command,
    is_plain,
    open_model,
    patterns_of,
    several_labels,
    silent_about_empty_rows,
)


def command(shop, **words):
    words = {"image_root": None, "on_bad_image": None, "device": "cpu"} | words
    return argparse.Namespace(table=str(shop / "table.csv"), quiet=True, **words)


def test_a_model_reads_images_beside_the_table_and_keeps_none(model, shop):
    opened = open_model(command(shop, model=model))
    assert (opened.image_root, opened.cache) == (str(shop), None)
    other = command(shop, model=model, image_root="/a", on_bad_image="missing")
    opened = open_model(other)
    assert (opened.image_root, opened.on_bad_image) == ("/a", "missing")


def test_what_a_fit_needed_of_its_machine_is_not_in_the_model(shop):
    clf = LinearProbeClassifier("robustmm/tiny-clip")
    with in_command(clf, command(shop)):
        assert clf.image_root == str(shop)
    assert (clf.image_root, clf.verbose) == (None, 0)


def test_a_pipeline_reads_all_columns(opened):
    pipeline = make_pipeline(opened)
    X = pd.DataFrame({"text": ["a"], "image": [None], "price": [1]})
    assert is_plain(opened)
    assert not is_plain(pipeline)
    assert for_model(opened, X).columns.tolist() == ["image", "text"]
    assert for_model(pipeline, X) is X
    assert columns_of(opened) == ["image", "text"]
    assert patterns_of(pipeline, X) == {}
    assert patterns_of(opened, X)["image_missing"] == 1


def test_whether_rows_have_several_labels(opened, model_of_tags, shop, table):
    opened_too = open_model(command(shop, model=model_of_tags))
    assert not several_labels(opened, table[["image", "text"]])
    assert several_labels(opened_too, table[["image", "text"]])


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
