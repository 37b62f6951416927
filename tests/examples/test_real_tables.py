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
    *("--train-rows", "20", "--test-rows", "12", "--held-out-rows", "4"),
    *("--device", "cpu"),
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
    folder = tmp_path / "20_rate0.7"
    # Two methods, tables, families and seeds.
    assert len(list(folder.glob("*.json"))) == 16
    path = folder / "default_Class-prior_fashion-products_unseen_1.json"
    scores = json.loads(path.read_text())["scores"]
    train_X, train_y = names["draw"]("fashion products", "train", 20, 1)
    X, y = names["draw"]("fashion products", "test", 12, 1)
    assert [len(train_X), len(X), *X.isna().sum()] == [20, 12, 4, 4]
    assert scores["all"] == pytest.approx((y == train_y.mode()[0]).mean())

    assert "### Fashion products, the package's encoders: accuracy" in printed
    assert "### Movie posters, the encoders named: mean average precision" in printed
    lines = [line for line in printed.splitlines() if line.startswith("| Class prior")]
    assert len(lines) == 2 * 4
    assert (tmp_path / "results.png").is_file()


def test_a_run_that_is_there_is_not_made_again(compare, tmp_path):
    options = ["--encoders", "unseen", "--seeds", "0"]
    compare(*options, *SIMPLE)
    runs = sorted(tmp_path.glob("*/*.json"))
    for path in runs[1:]:
        path.write_text(path.read_text().replace("clock_seconds", "old_seconds"))
    runs[0].unlink()
    compare(*options, "--tables", "fashion products", *SIMPLE[:2])
    assert "clock_seconds" in runs[0].read_text()
    assert all("old_seconds" in path.read_text() for path in runs[1:])


@pytest.mark.slow
def test_the_rate_is_the_best_one_on_held_out_rows(compare, tmp_path):
    rates = (1e-4, 3e-2)
    options = ["--encoders", "unseen", "--seeds", "0", "--methods", "MoRA"]
    compare(*options, "--learning-rates", *map(str, rates))
    for table in ("fashion-products", "movie-posters"):
        tried = {}
        for rate in rates:
            (path,) = tmp_path.glob(f"*/rate_{table}_unseen_MoRA_{rate}.json")
            tried[rate] = json.loads(path.read_text())["scores"]["all"]
        (path,) = tmp_path.glob(f"*/chosen_MoRA_{table}_unseen_0.json")
        assert json.loads(path.read_text())["rate"] == max(tried, key=tried.get)


def test_nothing_to_report_and_what_cannot_be_done(compare, capsys):
    with pytest.raises(SystemExit) as stop:
        compare("--report")
    assert stop.value.code == 0
    assert "No finished run" in capsys.readouterr().err
    for option in ("--methods", "--tables", "--encoders"):
        with pytest.raises(SystemExit) as stop:
            compare(option, "magic")
        assert stop.value.code == 2
        assert f"{option} must be among " in capsys.readouterr().err
