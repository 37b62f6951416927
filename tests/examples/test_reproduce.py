"""The published protocol on miniature folders: stopped, and gone on with."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dataset_cases import write_food101, write_hateful_memes, write_mmimdb

from robustmm import CMPTClassifier, MAPClassifier

SCRIPT = Path(__file__).parents[2] / "examples" / "reproduce.py"
WRITERS = {
    "mmimdb": lambda root: write_mmimdb(
        root,
        {
            "train": [f"{i:07}" for i in range(10)],
            "dev": ["0000100"],
            "test": [f"{i:07}" for i in range(200, 206)],
        },
    ),
    "food101": lambda root: write_food101(
        root,
        {
            "train": [
                f"{d}_{i}.jpg" for d in ("pho", "fried_rice") for i in range(3, 8)
            ],
            "val": ["pho_9.jpg"],
            "test": [f"{d}_{i}.jpg" for d in ("pho", "fried_rice") for i in range(3)],
        },
    ),
    "hateful_memes": lambda root: write_hateful_memes(
        root, {"train": range(1, 11), "dev_seen": [20], "test_seen": range(30, 36)}
    ),
}
TINY = [
    "--checkpoint",
    "vilt=robustmm/tiny-vilt",
    "clip=robustmm/tiny-clip",
    "bert=robustmm/tiny-bert",
]
SMALL = [*TINY, "--epochs", "1", "--batch-size", "8", "--prompt-layers", "2"]


@pytest.fixture
def reproduce(monkeypatch, tmp_path):
    def call(data_set, *options):
        root = tmp_path / data_set
        if not root.exists():
            root.mkdir()
            WRITERS[data_set](root)
        words = [data_set, "--root", str(root), "--device", "cpu", *SMALL, *options]
        words += ["--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
        return runpy.run_path(str(SCRIPT), run_name="__main__")

    return call


def test_a_stopped_command_goes_on_where_it_was(reproduce, monkeypatch, tmp_path):
    fits = []
    fit = {cls: cls.fit for cls in (MAPClassifier, CMPTClassifier)}

    def counted(self, X, y):
        fits.append((type(self).__name__, self.random_state, X.isna().sum().tolist()))
        return fit[type(self)](self, X, y)

    def interrupted(self, X, y):
        raise KeyboardInterrupt

    monkeypatch.setattr(MAPClassifier, "fit", counted)
    monkeypatch.setattr(CMPTClassifier, "fit", interrupted)
    command = ["hateful_memes", "--methods", "map-input", "cmpt", "--seeds", "0"]
    with pytest.raises(KeyboardInterrupt):
        reproduce(*command)
    runs = tmp_path / "out" / "hateful_memes_runs.csv"
    assert pd.read_csv(runs)["method"].tolist() == ["map-input"] * 3

    monkeypatch.setattr(CMPTClassifier, "fit", counted)
    reproduce(*command)
    assert [name for name, *_ in fits] == ["MAPClassifier", "CMPTClassifier"]
    # Of ten training rows seven lose a cell: three the image, four the text.
    assert fits[0][2] == fits[1][2] == [3, 4]
    before = runs.read_text()
    reproduce(*command)
    assert len(fits) == 2
    assert runs.read_text() == before

    reproduce(*command, "--lr", "1e-4", "--methods", "map-input")
    assert len(fits) == 3


def test_the_table_stands_beside_the_published_figures(reproduce, capsys, tmp_path):
    names = reproduce("hateful_memes", "--methods", "map-input", "--seeds", "0", "1")
    table = pd.read_csv(tmp_path / "out" / "hateful_memes_table.csv")
    assert table["tested"].tolist() == ["text", "image", "both"]
    assert table["published"].tolist() == [61.03, 64.05, 60.35]
    assert table["seeds"].tolist() == [2, 2, 2]
    difference = table["measured"] - table["published"]
    np.testing.assert_allclose(table["difference"], difference, atol=1e-3)
    runs = pd.read_csv(tmp_path / "out" / "hateful_memes_runs.csv")
    means = runs.groupby("tested")["score"].mean()
    np.testing.assert_allclose(table["measured"], means[table["tested"]], atol=1e-3)
    printed = capsys.readouterr().out
    assert "train 10: 3 complete, 4 without text, 3 without image" in printed
    assert "test  6: 2 complete, 2 without text, 2 without image" in printed
    assert "AUROC in percent, 70% blanked" in printed
    assert not list((tmp_path / "out" / "checkpoints").iterdir())
    check_metrics(names["score"])
    check_figures(names["published"])


class Told:
    """Predicts what it was told."""

    def __init__(self, predictions):
        self.predict = self.predict_proba = lambda X: np.array(predictions)


def check_metrics(score):
    """Compare the metrics with cases worked out by hand."""
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
    told = Told([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]])
    # One hit, one miss and one false alarm; two hits; a label that nobody has.
    assert score("mmimdb", told, None, truth) == pytest.approx(100 * (0.5 + 1 + 0) / 3)
    assert score("food101", Told(["pho", "pie"]), None, ["pho", "pho"]) == 50
    chance = np.array([0.9, 0.4, 0.6, 0.4, 0.2])
    told = Told(np.column_stack([1 - chance, chance]))
    auroc = score("hateful_memes", told, None, [1, 1, 0, 0, 0])
    assert auroc == pytest.approx(100 * 4.5 / 6)


def check_figures(published):
    """Look some figures of the papers up, and count them."""
    figures = published("food101").set_index(["method", "trained", "tested"])
    assert figures["published"]["memprompt", "text", "image"] == 80.81
    assert figures["published"]["map-input", "text", "image"] == 27.82
    assert figures["published"]["cmpt", "image", "text"] == 67.60
    assert len(figures) == 6 * 9 + 2 * 3
    assert figures["source"]["mora", "both", "both"] == "MoRA"


@pytest.mark.parametrize(
    ("data_set", "method", "counts"),
    [
        ("mmimdb", "mora", "train 10: 3 complete, 4 without text, 3 without image"),
        ("food101", "cmpt", "train 9: 3 complete, 3 without text, 3 without image"),
    ],
)
def test_the_other_data_sets(reproduce, capsys, tmp_path, data_set, method, counts):
    # MoRA and CMPT, whose recipes and checkpoints differ from ViLT's.
    reproduce(data_set, "--methods", method, "--seeds", "0", "--rate", "0.7")
    assert counts in capsys.readouterr().out
    runs = pd.read_csv(tmp_path / "out" / f"{data_set}_runs.csv")
    assert runs["score"].between(0, 100).all()
    assert runs["tested"].tolist() == ["text", "image", "both"]
    table = pd.read_csv(tmp_path / "out" / f"{data_set}_table.csv")
    assert table["published"].notna().sum() == (1 if method == "mora" else 3)


def test_an_unknown_kind_of_checkpoint_is_named(reproduce):
    with pytest.raises(SystemExit, match=r"knows .*'vilt'.* got \['vit'\]"):
        reproduce("food101", "--checkpoint", "vit=robustmm/tiny-vilt")
