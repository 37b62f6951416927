"""Errors speak of what the user typed, and give the line to write instead."""

import io

import numpy as np
import pandas as pd
import pytest
from contract import frame_with_holes
from sklearn.dummy import DummyClassifier
from sklearn.preprocessing import MultiLabelBinarizer
from toys import QuickClassifier

from robustmm import (
    CMPTClassifier,
    DeLoClassifier,
    LinearProbeClassifier,
    score_by_pattern,
)
from robustmm.datasets import make_scenes

X, Y = frame_with_holes(12)
GENRES = [["drama"], ["comedy", "drama"], []] * 4


def message(labels, table=X):
    with pytest.raises((ValueError, TypeError)) as caught:
        QuickClassifier().fit(table, labels)
    return str(caught.value)


# ---------------------------------------------------------------------------- labels


def test_the_name_of_the_column_of_labels():
    said = message("label")
    assert "got the name 'label': pass the column, y=df['label']." in said


@pytest.mark.parametrize(
    "labels",
    [
        GENRES,
        tuple(GENRES),
        pd.Series(GENRES),
        [set(row) for row in GENRES],
        [tuple(row) for row in GENRES],
        pd.Series([np.array(row, dtype=object) for row in GENRES]),
        [["drama", "comedy"]] * 12,
        pd.DataFrame({"genres": GENRES}),
    ],
)
def test_lists_of_labels(labels):
    said = message(labels)
    assert "write y = MultiLabelBinarizer().fit_transform(y), from sklearn" in said
    y = MultiLabelBinarizer().fit_transform(GENRES)
    assert QuickClassifier().fit(X, y).predict(X).shape == (12, 2)


def test_several_columns_of_texts():
    for y in (
        pd.DataFrame({"a": ["x", "y"] * 6, "b": "z"}),
        np.array([["x", "y"]] * 12),
    ):
        said = message(y)
        assert "must be an indicator matrix of zeros and ones, got the values" in said
        assert "MultiLabelBinarizer().fit_transform(y) makes one" in said


def test_indicators_in_the_cells_of_a_column():
    rows = [[0, 1], [1, 0], [1, 1]] * 4
    assert "write y = np.stack(y)." in message(pd.Series(rows))
    arrays = [np.array(row) for row in rows]
    for y in (rows, arrays, tuple(map(tuple, rows)), np.stack(pd.Series(rows))):
        assert QuickClassifier().fit(X, y).predict(X).shape == (12, 2)


def test_tasks_and_evaluations_say_so_too():
    for labels, line in (("label", r"y=df\['label'\]"), (GENRES, "MultiLabelBin")):
        with pytest.raises(ValueError, match=line):
            DeLoClassifier._small().fit(X, labels)
        with pytest.raises(ValueError, match=line):
            DeLoClassifier._small().partial_fit(X, labels)
        with pytest.raises(ValueError, match=line):
            score_by_pattern(DummyClassifier().fit(X, Y), X, labels)


def test_labels_one_by_one_are_labels():
    for y in ([1, 2] * 6, ["a", "b"] * 6, pd.Series(["a", "b"] * 6, dtype=object)):
        assert set(QuickClassifier().fit(X, y).classes_) == set(y)


# -------------------------------------------------------------------------- encoders


def test_a_backbone_of_another_kind():
    for clf, name in (
        (CMPTClassifier("robustmm/tiny-vilt"), "openai/clip-vit-base-patch16"),
        (DeLoClassifier("robustmm/tiny-clip"), "dandelin/vilt-b32-mlm"),
    ):
        with pytest.raises(ValueError, match="stands on") as caught:
            clf.fit(X, Y)
        assert f"Pass for example {name!r}" in str(caught.value)


# ------------------------------------------------------------------------ image_root


def album(folder, n=12):
    """Pictures in a folder, and a table of their names."""
    folder.mkdir(parents=True)
    table, y = make_scenes(n, n_classes=2, random_state=0)
    for i, image in enumerate(table["image"]):
        image.save(folder / f"{i}.png")
    return table.assign(image=[f"{i}.png" for i in range(n)]), y


def forgotten(table, y, **parameters):
    with pytest.raises(ValueError, match="lead to no file") as caught:
        CMPTClassifier._small(**parameters).fit(table, y)
    return str(caught.value)


def test_a_forgotten_root_is_one_message_with_the_folder(tmp_path, monkeypatch):
    table, y = album(tmp_path / "data" / "posters")
    monkeypatch.chdir(tmp_path)
    said = forgotten(table, y)
    assert said.startswith(
        "12 of 12 image paths lead to no file: row 0: '0.png'; row 1: '1.png'; "
    )
    assert "row 9: '9.png' (and 2 more). They were" in said
    assert f"They were looked for in {str(tmp_path)!r}" in said
    assert "pass image_root='data/posters', where they are" in said
    assert len(said) < 600
    CMPTClassifier._small(image_root="data/posters").fit(table, y)


@pytest.mark.parametrize("place", ["posters", "../posters", ".."])
def test_where_it_is_looked_for(place, tmp_path, monkeypatch):
    here = tmp_path / "work"
    here.mkdir()
    table, y = make_scenes(4, n_classes=2, random_state=0)
    (here / place).mkdir(exist_ok=True)
    for i, image in enumerate(table["image"]):
        image.save(here / place / f"{i}.png")
    monkeypatch.chdir(here)
    said = forgotten(table.assign(image=[f"{i}.png" for i in range(4)]), y)
    assert f"pass image_root={place!r}" in said


def test_a_root_too_many(tmp_path, monkeypatch):
    table, y = album(tmp_path / "posters")
    table["image"] = "posters/" + table["image"]
    monkeypatch.chdir(tmp_path)
    said = forgotten(table, y, image_root="posters")
    assert "pass image_root='.', where they are" in said


def test_nothing_like_it_anywhere(tmp_path, monkeypatch):
    table, y = make_scenes(4, n_classes=2, random_state=0)
    (tmp_path / "alone" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "alone" / "here")
    said = forgotten(table.assign(image=[f"{i}.png" for i in range(4)]), y)
    assert "pass image_root=, the folder that they start from" in said
    absolute = [f"/no/such/folder/{i}.png" for i in range(4)]
    said = forgotten(table.assign(image=absolute), y)
    assert "'/no/such/folder/0.png'" in said
    assert "image_root" not in said


def test_predict_and_missing_say_the_same(tmp_path, monkeypatch):
    table, y = album(tmp_path / "posters")
    monkeypatch.chdir(tmp_path)
    clf = LinearProbeClassifier("robustmm/tiny-clip", image_root="posters")
    clf.fit(table, y).set_params(image_root=None)
    with pytest.raises(ValueError, match=r"12 of 12 .* image_root='posters'"):
        clf.predict(table)
    clf.set_params(on_bad_image="missing")
    with pytest.warns(UserWarning, match=r"12 of 12 .* image_root='posters'"):
        clf.predict(table)


def test_few_absent_files_are_named_by_row(tmp_path):
    table, y = album(tmp_path / "posters")
    table.loc[table.index[[2, 5]], "image"] = "none.png"
    with pytest.raises(
        ValueError, match="2 image cells cannot be read: row 2"
    ) as found:
        CMPTClassifier._small(image_root=tmp_path / "posters").fit(table, y)
    assert "lead to no file" not in str(found.value)


def test_other_faults_are_told_beside(tmp_path, monkeypatch):
    table, y = album(tmp_path / "posters")
    monkeypatch.chdir(tmp_path)
    table["image"] = table["image"].astype(object)
    table.iat[3, list(table).index("image")] = b""
    said = forgotten(table, y)
    assert said.startswith("11 of 11 image paths lead to no file")
    assert "1 other image cells cannot be read: row 3: it is empty (zero bytes)" in said


def test_a_csv_goes_the_whole_way(tmp_path, monkeypatch):
    table, y = album(tmp_path / "shop" / "images")
    stream = io.StringIO(table.assign(label=list(y)).to_csv(index=False))
    monkeypatch.chdir(tmp_path / "shop")
    df = pd.read_csv(stream)
    said = forgotten(df, df["label"])
    assert "pass image_root='images'" in said
    clf = CMPTClassifier._small(image_root="images").fit(df, df["label"])
    assert clf.predict(df[["text", "image"]]).shape == (12,)
