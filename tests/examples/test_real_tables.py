"""The comparison on miniature tables: its scores, where it goes on, what it prints."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "real_tables.py"
TINY = [
    *("--vilt", "robustmm/tiny-vilt"),
    *("--clip", "robustmm/tiny-clip"),
    *("--bert", "robustmm/tiny-bert"),
]
SMALL = [
    *("--train-rows", "20", "--test-rows", "12", "--held-out-rows", "10"),
    *("--epochs", "1", "--device", "cpu"),
]
SIMPLE = ["--methods", "Class prior", "TF-IDF on the text"]


def write_table(root: Path, folder: str, n_rows: int, **columns) -> None:
    """Write rows whose pictures are of one colour, two thirds of them for training."""
    rng = np.random.default_rng(0)
    images = root / folder / "images"
    images.mkdir(parents=True)
    names = [f"{folder}_{i}.png" for i in range(n_rows)]
    for name in names:
        color = tuple(rng.integers(256, size=3).tolist())
        Image.new("RGB", (16, 16), color).save(images / name)
    split = np.where(np.arange(n_rows) % 3 < 2, "train", "test")
    table = pd.DataFrame({"id": names, "image": names, "split": split, **columns})
    table.to_csv(root / folder / "table.csv", index=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    kinds = np.where(np.arange(36) % 5 < 3, "shirt", "shoe")
    titles = [f"blue {kind}" for kind in kinds]
    write_table(root, "fashion_products", 36, text_masked=titles, label=kinds)
    plots = ["a war", "a war and love", "love"] * 12
    genres = ["War", "Romance|War", "Romance"] * 12
    write_table(root, "movie_posters", 36, text=plots, labels=genres)
    write_table(root, "movie_posters_extra", 36, text=plots, labels=genres)
    extra = root / "movie_posters_extra" / "table.csv"
    table = pd.read_csv(extra).assign(split="train")
    table.loc[::2, "image"] = None
    table.to_csv(extra, index=False)
    return root


@pytest.fixture
def compare(monkeypatch, tmp_path, data, capsys):
    def call(*options):
        words = ["--data", str(data), "--out", str(tmp_path), *TINY, *SMALL, *options]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
        names = runpy.run_path(str(SCRIPT), run_name="__main__")
        return names, capsys.readouterr().out

    return call


def test_simple_methods_in_all_settings(compare, tmp_path):
    names, printed = compare("--seeds", "0", "1", *SIMPLE)
    folder = tmp_path / "20x1_rate0.7"
    # Two tables: two seeds and two scenarios each; and once incomplete training rows.
    assert len(list(folder.glob("*.json"))) == 2 * (2 * (2 + 2) + 1)
    path = folder / "Class-prior_both_fashion-products_both_1.json"
    scores = json.loads(path.read_text())["tests"]["both"]
    (train_X, train_y), tests = names["data_of"]("both", "fashion products", "both", 1)
    X, y = tests["both"]
    assert [len(train_X), len(X), *X.isna().sum()] == [20, 12, 4, 4]
    expected = (y == train_y.mode()[0]).mean()
    assert scores["all"]["accuracy"] == pytest.approx(expected)

    assert "### Fashion products, 70% both, accuracy, 2 seeds" in printed
    assert "### Movie posters, 70% both, F1-macro, 2 seeds" in printed
    assert "### Training rows that really are incomplete" in printed
    lines = [line for line in printed.splitlines() if line.startswith("| Class prior")]
    assert len(lines) == 2 * 3 + 1 + 1
    assert printed.count("text → image") == 2
    with Image.open(folder / "results.png") as picture:
        assert picture.size == (1210, 550)


def test_a_run_that_is_there_is_not_made_again(compare, tmp_path):
    compare("--settings", "both", "--seeds", "0", *SIMPLE)
    runs = sorted(tmp_path.glob("*/*.json"))
    for path in runs[1:]:
        path.write_text(path.read_text().replace("fit_seconds", "old_seconds"))
    runs[0].unlink()
    compare(
        *("--settings", "both", "--tables", "fashion products", "--seeds", "0"),
        *SIMPLE[:2],
    )
    assert "fit_seconds" in runs[0].read_text()
    assert all("old_seconds" in path.read_text() for path in runs[1:])


def test_the_rate_is_the_best_one_on_held_out_rows(compare, tmp_path):
    options = ["--settings", "both", "--seeds", "0", "--methods", "Head, CLIP"]
    names, _ = compare(*options)
    for table in ("fashion-products", "movie-posters"):
        tried = {
            rate: names["main_score"](json.loads(path.read_text())["tests"]["both"])
            for rate in (1e-3, 3e-3, 1e-2)
            for path in tmp_path.glob(f"*/rate_{table}_Head-CLIP_{rate}.json")
        }
        path = next(tmp_path.glob(f"*/Head-CLIP_both_{table}_both_0.json"))
        assert len(tried) == 3
        assert json.loads(path.read_text())["rate"] == max(tried, key=tried.get)


def test_nothing_to_report_and_what_cannot_be_done(compare, capsys):
    with pytest.raises(SystemExit) as stop:
        compare("--report")
    assert stop.value.code == 0
    assert "No finished run in" in capsys.readouterr().err
    for option in ("--methods", "--tables", "--settings"):
        with pytest.raises(SystemExit) as stop:
            compare(option, "magic")
        assert stop.value.code == 2
        assert f"{option} must be among " in capsys.readouterr().err
    with pytest.raises(ValueError, match="There are 24 train rows, got 25 to draw"):
        compare("--methods", "Class prior", "--train-rows", "25")
