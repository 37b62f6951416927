"""``robustmm predict``: the model's own answers, in pieces, whatever the format."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

import robustmm
from robustmm.commands import main, predict
from robustmm.commands.tables import FORMATS, read_pieces


@pytest.fixture
def pieces_of_5(monkeypatch):
    monkeypatch.setattr(predict, "read_pieces", partial(read_pieces, size=5))


def expected(clf, table, shop):
    X = table[["image", "text"]]
    with pytest.warns(UserWarning, match="neither"):
        return clf.predict(X), clf.predict_proba(X)


@pytest.mark.parametrize("suffix", FORMATS)
def test_answers_are_those_of_the_model(
    suffix, model, shop, table, opened, pieces_of_5, tmp_path, capsys
):
    labels, proba = expected(opened, table, shop)
    out = tmp_path / f"out{suffix}"
    words = [str(model), str(shop / f"table{suffix}"), "--proba", "--keep", "id"]
    assert main(["predict", *words, "--out", str(out), "--quiet"]) == 0
    found = next(read_pieces(out, [], ["id"]))
    assert list(found) == ["id", "prediction", "proba_beach", "proba_forest"]
    assert found["id"].tolist() == table["id"].tolist()
    assert found["prediction"].tolist() == labels.tolist()
    np.testing.assert_allclose(found.iloc[:, 2:].astype(float), proba, atol=1e-6)
    errors = capsys.readouterr().err
    assert "24 rows predicted (21 complete, 1 text missing" in errors
    assert errors.count("1 of 24 rows have neither image nor text") == 1


def test_without_a_file_the_table_is_all_of_stdout(model, shop, pieces_of_5, capsys):
    assert main(["predict", str(model), str(shop / "table.csv")]) == 0
    captured = capsys.readouterr()
    head, *lines = captured.out.splitlines()
    assert head == "prediction"
    assert len(lines) == 24
    assert set(lines) == {"beach", "forest"}
    assert "predict: 100%" in captured.err


def test_several_labels_are_joined(model_of_tags, shop, table, capsys):
    words = [str(model_of_tags), str(shop / "table.csv"), "--quiet"]
    assert main(["predict", *words, "--labels-separator", " & "]) == 0
    found = capsys.readouterr().out.splitlines()[1:]
    clf = robustmm.load(model_of_tags, device="cpu").set_params(image_root=str(shop))
    indicators, _ = expected(clf, table, shop)
    names = [
        " & ".join(c for c, on in zip(clf.classes_, row, strict=True) if on)
        for row in indicators
    ]
    assert found == [name or '""' for name in names]


def test_only_the_columns_that_the_model_reads_must_be_there(model, tmp_path, capsys):
    path = tmp_path / "table.csv"
    pd.DataFrame({"text": ["a palm"], "image": None, "x": 1}).to_csv(path, index=False)
    assert main(["predict", str(model), str(path), "--quiet"]) == 0
    path.write_text("text\na palm\n")
    assert main(["predict", str(model), str(path), "--quiet"]) == 1
    assert "must have a column 'image'" in capsys.readouterr().err


def test_bad_images_are_an_error_or_missing(model, tmp_path, capsys):
    path, out = tmp_path / "table.csv", tmp_path / "out.csv"
    path.write_text("image,text\n,a palm\nno.png,a palm\n")
    words = ["predict", str(model), str(path), "--out", str(out), "--quiet"]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "row 1: no such file" in error
    assert "Pass --on-bad-image missing" in error
    assert not out.exists()
    assert main([*words, "--on-bad-image", "missing"]) == 0
    first, second = pd.read_csv(out)["prediction"]
    assert first == second


def test_what_is_there_is_not_replaced_unasked(model, shop, tmp_path, capsys):
    out = tmp_path / "out.csv"
    out.write_text("old")
    words = ["predict", str(model), str(shop / "table.csv"), "--out", str(out)]
    assert main([*words, "--quiet"]) == 1
    assert out.read_text() == "old"
    assert main([*words, "--quiet", "--force"]) == 0
    assert out.read_text().startswith("prediction\n")


def test_a_copied_column_cannot_be_that_of_the_labels(model, shop):
    words = ["predict", str(model), str(shop / "table.csv"), "--keep", "prediction"]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
