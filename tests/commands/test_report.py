"""``robustmm report``: the evaluation's own numbers, and pictures of them."""

import pandas as pd
import pytest
from PIL import Image

import robustmm
from robustmm.commands import main

PICTURES = {"patterns.png", "missing_rates.png", "confusion.png"}
NUMBERS = {"patterns.csv", "blanked.csv", "missing_rates.csv"}


def test_numbers_are_those_of_the_evaluation(
    model, shop, table, opened, tmp_path, capsys
):
    words = [str(model), str(shop / "table.csv"), "--label", "kind", "--quiet"]
    assert main(["report", *words, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "Rows by what they miss" in said.out
    assert {file.name for file in tmp_path.iterdir()} == PICTURES | NUMBERS
    X, y = table[["image", "text"]], table["kind"]
    with pytest.warns(UserWarning, match="neither"):
        expected = robustmm.score_by_pattern(opened, X, y, scoring="accuracy")
    found = pd.read_csv(tmp_path / "patterns.csv", index_col="pattern")
    assert found["accuracy"].tolist() == pytest.approx(expected["score"].tolist())
    assert "f1_macro" in found
    curve = pd.read_csv(tmp_path / "missing_rates.csv")
    assert curve["rate"].nunique() == 6
    start = curve.loc[curve["rate"] == 0, "accuracy"].tolist()
    assert start == pytest.approx([expected.loc["all", "score"]] * 2)
    for name in PICTURES:
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (960, 600)


def test_several_labels_need_not_be_announced(model_of_tags, shop, tmp_path, capsys):
    words = [str(model_of_tags), str(shop / "table.csv"), "--label", "tags"]
    assert main(["report", *words, "--quiet"]) == 0
    said = capsys.readouterr()
    assert "f1_micro" in said.out
    assert said.err == ""


def test_a_label_that_the_model_lacks_is_named(model, shop, capsys):
    words = [str(model), str(shop / "table.csv"), "--label", "tags", "--quiet"]
    assert main(["report", *words]) == 1
    assert "Labels must be those of the model, ['beach', 'forest']" in (
        capsys.readouterr().err
    )


def test_numbers_as_labels_are_numbers(shop, tmp_path, table, capsys):
    path = shop / "numbers.csv"
    table.assign(n=(table["kind"] == "beach").astype(int)).to_csv(path, index=False)
    words = ["--label", "n", "--method", "linearprobe", "--quiet"]
    out = ["--out", str(tmp_path / "m"), "--backbone", "robustmm/tiny-clip"]
    assert main(["fit", str(path), *words, *out]) == 0
    assert main(["report", str(tmp_path / "m"), str(path), *words[:2], "--quiet"]) == 0
    assert "complete" in capsys.readouterr().out


def test_a_model_with_experts_has_their_picture(shop, tmp_path, capsys):
    table = str(shop / "table.csv")
    words = ["--method", "mail", "--backbone", "robustmm/tiny-vilt", "--quiet"]
    words += ["--set", "max_epochs=1", "--set", "rank=1", "--seed", "0"]
    out = tmp_path / "m"
    assert main(["fit", table, "--label", "kind", "--out", str(out), *words]) == 0
    report = ["report", str(out), table, "--label", "kind", "--quiet"]
    assert main([*report, "--out", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "experts.png").is_file()
