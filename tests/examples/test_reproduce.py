"""The published protocol on miniature folders: stopped, and gone on with."""

import json
import random
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dataset_cases import write_food101, write_hateful_memes, write_mmimdb

from robustmm import CMPTClassifier, MAPClassifier, missing_table

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
        root,
        {
            "train": range(1, 11),
            "dev_seen": range(20, 24),
            "test_seen": range(30, 36),
        },
    ),
}
TINY = [
    "--checkpoint",
    "vilt=robustmm/tiny-vilt",
    "clip=robustmm/tiny-clip",
    "bert=robustmm/tiny-bert",
    "retriever=robustmm/tiny-clip",
]
SMALL = [*TINY, "--epochs", "1", "--batch-size", "8", "--prompt-layers", "2"]


@pytest.fixture
def reproduce(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(SCRIPT.parent)  # where it finds its other parts

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


@pytest.fixture
def fits(monkeypatch):
    """Rows, validation rows and parameters of each fit; nothing is trained."""
    calls = []

    def fit(self, X, y, validation_data=None):
        calls.append((X, validation_data, self.get_params(deep=False)))
        self.history_ = pd.DataFrame({"dur": [0.0]})
        self.n_trainable_parameters_ = 7

    def predict_proba(self, X):
        chance = np.linspace(0, 1, len(X))
        return np.column_stack([1 - chance, chance])

    monkeypatch.setattr(MAPClassifier, "fit", fit)
    monkeypatch.setattr(MAPClassifier, "predict_proba", predict_proba)
    return calls


COMMAND = ["hateful_memes", "--methods", "map-input", "--seeds", "0"]


def test_a_run_is_repeated_when_anything_changes_and_only_then(
    reproduce, fits, tmp_path
):
    changes = [
        ["--rate", "0.5"],
        ["--rate", "0"],
        ["--test-rate", "0.3"],
        ["--order", "nested"],
        ["--order", "map"],
        ["--select", "held-out"],
        ["--select", "official"],
        ["--table-seed", "1"],
        ["--scenarios", "text"],
        ["--seeds", "1"],
        ["--text-length", "9"],
        ["--train-rows", "9"],
        ["--test-rows", "5"],
    ]
    for change in [[], *changes]:
        before = len(fits)
        reproduce(*COMMAND, *change)
        assert len(fits) == before + 1, change
    for same in [["--verbose"], ["--early-stopping"], *changes[:5]]:
        reproduce(*COMMAND, *same)
    assert len(fits) == 1 + len(changes)
    runs = pd.read_csv(tmp_path / "out" / "hateful_memes_runs.csv")
    assert set(runs["select"]) == {"none", "held-out", "official"}


def test_any_parameter_of_the_recipe_makes_another_run(
    reproduce, fits, monkeypatch, tmp_path
):
    incidental = {"cache", "checkpoint_dir", "device", "image_root", "random_state"}
    names = reproduce(*COMMAND)
    fingerprint, other = names["fingerprint"], object()
    clf = names["known"]["map-input"]
    first = fingerprint(clf)
    assert len(first) == 10
    for name in clf.get_params(deep=False):
        changed = fingerprint(type(clf)(**clf.get_params() | {name: other}))
        assert (changed == first) == (name in incidental | {"verbose"}), name
    # The recipe of the paper, of which no option speaks.
    monkeypatch.setitem(MAPClassifier.PAPER["hateful_memes"], "weight_decay", 0.5)
    reproduce(*COMMAND)
    assert len(fits) == 2
    runs = pd.read_csv(tmp_path / "out" / "hateful_memes_runs.csv")
    recipes = json.loads((tmp_path / "out" / "hateful_memes_recipes.json").read_text())
    assert runs["recipe"].unique().tolist() == list(recipes)
    # The first is the default, and not said.
    assert [recipe.get("weight_decay") for recipe in recipes.values()] == [None, 0.5]
    assert all(recipe["class"] == "MAPClassifier" for recipe in recipes.values())


def test_a_recipe_that_reads_like_a_number_is_found_again(reproduce, fits, tmp_path):
    names = reproduce(*COMMAND)
    path = tmp_path / "out" / "hateful_memes_runs.csv"
    path.write_text(path.read_text().replace(names["key"]["recipe"], "0012345678"))
    records = names["read_records"](path)
    assert {record["recipe"] for record in records} == {"0012345678"}


def test_a_table_of_an_older_version_is_refused(reproduce, fits, tmp_path):
    reproduce(*COMMAND)
    path = tmp_path / "out" / "hateful_memes_runs.csv"
    pd.read_csv(path).drop(columns="recipe").to_csv(path, index=False)
    old = path.read_text()
    with pytest.raises(SystemExit, match=r"hateful_memes_runs.csv must have a column"):
        reproduce(*COMMAND)
    assert len(fits) == 1
    assert path.read_text() == old


def test_training_and_test_have_rates_of_their_own(reproduce, fits, tmp_path):
    reproduce(*COMMAND, "--rate", "0", "--test-rate", "0", "1")
    (X, _, _), runs = fits[0], tmp_path / "out" / "hateful_memes_runs.csv"
    assert X.notna().all(axis=None)
    cases = pd.read_csv(runs)[["trained", "test_rate", "tested"]].to_numpy().tolist()
    assert cases == [
        ["complete", 0.0, "complete"],
        ["complete", 1.0, "text"],
        ["complete", 1.0, "image"],
        ["complete", 1.0, "both"],
    ]
    # What is there is not measured again; a further rate needs the training again.
    reproduce(*COMMAND, "--rate", "0", "--test-rate", "0", "--scenarios", "text")
    assert len(fits) == 1
    reproduce(*COMMAND, "--rate", "0", "--test-rate", "1", "0.5")
    assert len(fits) == 2
    assert pd.read_csv(runs)["test_rate"].tolist() == [0.0, 1.0, 1.0, 1.0, *[0.5] * 3]
    with pytest.raises(SystemExit):
        reproduce(*COMMAND, "--test-rate", "1.5")


def test_official_validation_rows_have_the_holes_of_the_training(reproduce, fits):
    reproduce(*COMMAND, "--select", "official", "--rate", "0.5", "--test-rate", "1")
    X, (validation, y), params = fits[0]
    assert params["early_stopping"]
    assert params["scoring"] == "roc_auc"
    assert X.isna().sum().tolist() == [2, 3]
    assert validation.index.tolist() == [20, 21, 22, 23]
    assert y.tolist() == [0, 1, 0, 1]
    assert validation.isna().sum().tolist() == [1, 1]
    reproduce(*COMMAND, "--select", "held-out")
    _, validation, params = fits[1]
    assert validation is None
    assert params["early_stopping"]
    reproduce(*COMMAND)
    _, validation, params = fits[2]
    assert validation is None
    assert not params["early_stopping"]
    assert params["scoring"] is None


def test_validation_rows_that_are_not_there_are_named(reproduce, fits, tmp_path):
    reproduce(*COMMAND)
    rows = tmp_path / "hateful_memes" / "dev_seen.jsonl"
    rows.write_text("")
    with pytest.raises(SystemExit, match=r"rows of hateful_memes.*has no rows\.$"):
        reproduce(*COMMAND, "--order", "map")
    rows.unlink()
    with pytest.raises(SystemExit, match=r"rows of hateful_memes.*dev_seen.jsonl"):
        reproduce(*COMMAND, "--select", "official")
    reproduce(*COMMAND)
    assert len(fits) == 1
    WRITERS["food101"](tmp_path / "food101")
    splits = tmp_path / "food101" / "split.json"
    left = {k: v for k, v in json.loads(splits.read_text()).items() if k != "val"}
    splits.write_text(json.dumps(left))
    with pytest.raises(SystemExit, match=r"rows of food101.*there is no split 'val'"):
        reproduce("food101", "--select", "official")


def test_the_commands_of_the_pages_are_understood(reproduce, fits, monkeypatch):
    understand = reproduce(*COMMAND)["arguments"]
    pages = sorted((SCRIPT.parents[1] / "docs" / "papers").glob("*.rst"))
    text = "\n".join(page.read_text() for page in pages)
    commands = re.findall(r"``python\s+examples/reproduce\.py\s([^`]+)``", text)
    assert len(commands) >= 10
    for command in commands:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *command.split()])
        assert understand().data_set == command.split()[0]


def test_the_order_map_draws_split_by_split(reproduce, fits, monkeypatch):
    reproduce(*COMMAND, "--order", "map", "--select", "official")
    drawn = random.Random(0)
    tables = [missing_table(n, 0.7, "both", drawn, order="map") for n in (10, 4, 6)]
    X, (validation, _), _ = fits[0]
    for rows, table in [(X, tables[0]), (validation, tables[1])]:
        np.testing.assert_array_equal(rows["text"].isna(), table == 1)
        np.testing.assert_array_equal(rows["image"].isna(), table == 2)
    names = reproduce(*COMMAND, "--order", "map")
    rows = names["blank"]("test", "both", 0.7)
    np.testing.assert_array_equal(rows["image"].isna(), tables[2] == 2)
    # A higher rate keeps the holes of a lower one.
    names = reproduce(*COMMAND, "--order", "nested")
    low, high = (names["blank"]("train", "both", rate).isna() for rate in (0.4, 0.9))
    assert (high | ~low).all(axis=None)


def test_the_rivals_train_and_are_selected(reproduce, tmp_path):
    reproduce(
        *["hateful_memes", "--methods", "dcp", "ragpt", "--seeds", "0"],
        *["--rate", "0.5", "--select", "official", "--order", "map"],
    )
    table = pd.read_csv(tmp_path / "out" / "hateful_memes_table.csv")
    assert table["method"].tolist() == ["dcp"] * 3 + ["ragpt"] * 3
    assert table["measured"].between(0, 100).all()
    # No paper trains DCP on rows of one kind and tests it on others.
    assert table["published"].dropna().to_dict() == {2: 66.02}


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
    figures = published("food101", 0.7, 0.7)
    figures = figures.set_index(["method", "trained", "tested"])
    assert figures["published"]["memprompt", "text", "image"] == 80.81
    assert figures["published"]["map-input", "text", "image"] == 27.82
    assert figures["published"]["cmpt", "image", "text"] == 67.60
    assert figures["published"]["ragpt", "image", "image"] == 81.98
    assert len(figures) == 6 * 9 + 4 * 3
    assert figures["source"]["mora", "both", "both"] == "MoRA"
    figures = published("mmimdb", 0.9, 0.9).set_index(["method", "trained", "tested"])
    assert figures["published"]["mora", "text", "text"] == 50.67
    assert figures["published"]["dcp", "both", "both"] == 48.04
    complete = published("food101", 0.0, 1.0).set_index(["trained", "tested"])
    assert complete["published"].to_dict() == {
        ("complete", "text"): 75.66,
        ("complete", "image"): 85.31,
    }
    assert published("mmimdb", 0.0, 0.0)["published"].tolist() == [63.58]
    assert len(published("mmimdb", 0.7, 0.9)) == 0


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
