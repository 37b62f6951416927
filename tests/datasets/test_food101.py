"""UPMC Food-101 in miniature: titles of either kind, splits, missing files."""

import json

import pytest
from dataset_cases import write_food101

from robustmm.data import read_rows
from robustmm.datasets import load_food101


@pytest.fixture(params=["csv", "json"])
def root(request, tmp_path):
    return write_food101(tmp_path, titles=request.param)


def test_pictures_titles_and_dishes(root):
    X, y = load_food101(root)
    assert list(X) == ["image", "text"]
    names = ["apple_pie_1.jpg", "apple_pie_2.jpg", "fried_rice_7.jpg"]
    assert X.index.tolist() == y.index.tolist() == names
    assert y.tolist() == ["apple_pie", "apple_pie", "fried_rice"]
    assert X["text"].iloc[0] == 'The best apple_pie, "easy" | Blog'
    path = root / "images" / "train" / "fried_rice" / "fried_rice_7.jpg"
    assert X["image"].iloc[2] == str(path)


def test_a_picture_without_title_has_an_empty_cell(root):
    X, _ = load_food101(root)
    assert read_rows(X).patterns.tolist() == ["complete", "complete", "text_missing"]
    assert len(X[X["text"].notna()]) == 2


def test_validation_pictures_lie_among_the_training_ones(root):
    X, y = load_food101(root, "dev")
    assert X["image"].iloc[0].endswith("train/fried_rice/fried_rice_8.jpg")
    assert y.tolist() == ["fried_rice"]
    splits = json.loads((root / "split.json").read_text())
    splits["dev"] = splits.pop("val")
    (root / "split.json").write_text(json.dumps(splits))
    assert load_food101(root, "dev")[0].equals(X)


def test_test_pictures(root):
    X, y = load_food101(root, "test")
    assert X["image"].iloc[0].endswith("test/apple_pie/apple_pie_0.jpg")
    assert y.tolist() == ["apple_pie", "fried_rice"]


def test_files_that_are_not_there_are_named(root):
    gone = root / "images" / "train" / "apple_pie" / "apple_pie_1.jpg"
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 images .*apple_pie_1.jpg.*upmc"):
        load_food101(root)
    X, _ = load_food101(root, on_missing_image="missing")
    assert X["image"].isna().tolist() == [True, False, False]
    for titles in (root / "text.json", root / "texts" / "train_titles.csv"):
        titles.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"train_titles.csv \(or text.json\)"):
        load_food101(root)
    (root / "split.json").unlink()
    rule = r"split.json, which is not there. .*missing_aware_prompts"
    with pytest.raises(FileNotFoundError, match=rule):
        load_food101(root)


def test_an_unknown_split_is_named(root):
    with pytest.raises(ValueError, match=r"split must be one of .* got 'val'"):
        load_food101(root, "val")
