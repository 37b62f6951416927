"""``robustmm fit``: what is saved, and what is not replaced."""

import shutil

import numpy as np
import pytest

import robustmm
from robustmm.commands import main

PROBE = ["--method", "linearprobe", "--backbone", "robustmm/tiny-clip", "--quiet"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_model_is_that_of_a_fit_by_hand(suffix, shop, table, tmp_path, capsys):
    words = ["--label", "kind", "--out", str(tmp_path / "m"), *PROBE]
    assert main(["fit", str(shop / f"table{suffix}"), *words]) == 0
    said = capsys.readouterr()
    counts = "21 complete, 1 text missing, 1 image missing, 1 both missing"
    assert f"fitted on 24 rows ({counts}) with 2 classes" in said.out
    assert "1 of 24 rows have neither" in said.err
    opened = robustmm.load(tmp_path / "m", device="cpu")
    assert (opened.image_root, opened.verbose) == (None, 0)
    X = table[["image", "text"]]
    clf = robustmm.LinearProbeClassifier("robustmm/tiny-clip", image_root=shop)
    with pytest.warns(UserWarning, match="neither"):
        expected = clf.fit(X, table["kind"]).predict_proba(X[:3])
    proba = opened.set_params(image_root=shop).predict_proba(X[:3])
    np.testing.assert_allclose(proba, expected, atol=1e-6)


def test_without_a_method_the_best_of_several_is_fitted(shop, tmp_path, capsys):
    model, moved = tmp_path / "m", tmp_path / "elsewhere"
    words = ["--label", "kind", "--out", str(model), "--seed", "0", "--quiet"]
    words += ["--backbone", "robustmm/tiny-clip", "--device", "cpu"]
    words += ["--set", "max_epochs=1", "--time-limit", "3"]
    assert main(["fit", str(shop / "table.csv"), *words]) == 0
    assert "AutoMultimodalClassifier fitted on 24 rows" in capsys.readouterr().out
    # The same images of another folder: nothing may be read where the fit was.
    shutil.copytree(shop, moved)
    predict = ["predict", str(model), "--quiet", "--proba"]
    assert main([*predict, str(shop / "table.csv")]) == 0
    expected = capsys.readouterr().out
    shutil.rmtree(moved / "images")
    assert main([*predict, str(moved / "table.csv")]) == 1
    assert str(moved / "images") in capsys.readouterr().err
    shutil.copytree(shop / "images", moved / "images")
    assert main([*predict, str(moved / "table.csv")]) == 0
    assert capsys.readouterr().out == expected


def test_several_labels_are_indicators_with_names(model_of_tags):
    opened = robustmm.load(model_of_tags, device="cpu")
    assert opened.classes_.tolist() == ["beach", "forest", "odd"]


def test_a_model_is_replaced_only_if_asked(model, shop, tmp_path, capsys):
    out = tmp_path / "m"
    words = ["fit", str(shop / "table.csv"), "--label", "kind", "--out", str(out)]
    assert main([*words, *PROBE]) == 0
    before = (out / "robustmm.json").read_bytes()
    assert main([*words, *PROBE]) == 1
    assert "exists; --force replaces a saved model" in capsys.readouterr().err
    assert (out / "robustmm.json").read_bytes() == before
    assert main([*words, *PROBE, "--force"]) == 0
    assert (out / "robustmm.json").read_bytes() != before


def test_a_folder_of_others_is_not_replaced_and_not_trained_for(shop, tmp_path, capsys):
    (tmp_path / "thesis.txt").touch()
    words = ["--label", "kind", "--out", str(tmp_path), "--force", "--method", "mail"]
    # A backbone that does not exist: nothing was tried.
    words += ["--backbone", str(tmp_path / "none")]
    assert main(["fit", str(shop / "table.csv"), *words]) == 1
    assert "holds ['thesis.txt']" in capsys.readouterr().err


def test_a_column_that_lacks_and_a_row_without_label_are_named(shop, tmp_path, capsys):
    words = ["--out", str(tmp_path / "m"), *PROBE]
    assert main(["fit", str(shop / "table.csv"), "--label", "knd", *words]) == 1
    assert "must have a column 'knd'" in capsys.readouterr().err
    table = tmp_path / "table.csv"
    table.write_text("image,text,kind\n,a cow,farm\n,a boat,\n")
    assert main(["fit", str(table), "--label", "kind", *words]) == 1
    assert "of which the first is row 1" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
