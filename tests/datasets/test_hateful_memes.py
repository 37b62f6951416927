"""Hateful Memes in miniature: the splits that results are published with."""

import json

import pytest
from dataset_cases import MEMES, write_hateful_memes

from robustmm.data import read_rows
from robustmm.datasets import load_hateful_memes


@pytest.fixture
def root(tmp_path):
    return write_hateful_memes(tmp_path)


@pytest.mark.parametrize(
    ("split", "file"), [("train", "train"), ("dev", "dev_seen"), ("test", "test_seen")]
)
def test_memes_and_labels(root, split, file):
    X, y = load_hateful_memes(root, split)
    numbers = MEMES[file]
    assert X.index.tolist() == y.index.tolist() == numbers
    assert X["text"].tolist() == [f"writing on meme {n}" for n in numbers]
    assert X["image"].tolist() == [str(root / f"img/{n:05}.png") for n in numbers]
    assert y.tolist() == [i % 2 for i in range(len(numbers))]
    assert set(read_rows(X).patterns) == {"complete"}


def test_renamed_files_and_a_folder_below(tmp_path):
    root = write_hateful_memes(tmp_path)
    seen = load_hateful_memes(root, "test")
    (root / "test_seen.jsonl").rename(root / "test.jsonl")
    assert load_hateful_memes(root, "test")[0].equals(seen[0])
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("img", "train.jsonl", "dev_seen.jsonl", "test.jsonl"):
        (root / name).rename(folder / name)
    X, y = load_hateful_memes(root, "test")
    assert X["image"].iloc[0].startswith(str(folder))
    assert y.equals(seen[1])


def test_the_second_phase(tmp_path):
    root = write_hateful_memes(tmp_path, {"test_unseen": [1, 2], "dev_unseen": [3]})
    assert load_hateful_memes(root, "test_unseen")[0].index.tolist() == [1, 2]
    assert load_hateful_memes(root, "dev_unseen")[0].index.tolist() == [3]
    with pytest.raises(FileNotFoundError, match=r"test_seen.jsonl \(or test.jsonl\)"):
        load_hateful_memes(root, "test")


def test_rows_without_labels_are_refused(root):
    lines = (root / "test_seen.jsonl").read_text().splitlines()
    bare = [json.loads(line) for line in lines]
    del bare[1]["label"]
    (root / "test_seen.jsonl").unlink()
    text = "\n".join(json.dumps(meme) for meme in bare)
    (root / "test.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"must have a label, .*test.jsonl has rows"):
        load_hateful_memes(root, "test")


def test_what_is_not_there_is_named(root):
    (root / "img" / "08291.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 images .*08291.png.*challenge.com"):
        load_hateful_memes(root, "dev")
    X, _ = load_hateful_memes(root, "dev", on_missing_image="missing")
    assert X["image"].tolist() == [None]
    with pytest.raises(ValueError, match=r"split must be one of .* got 'test_seen'"):
        load_hateful_memes(root, "test_seen")
    (root / "train.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"train.jsonl .* which is not there"):
        load_hateful_memes(root)
