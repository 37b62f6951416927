"""The published protocol on miniature folders of sounds and films."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dataset_cases import write_ave, write_crema_d, write_kinetics_sound

from robustmm import CMPTClassifier

SCRIPT = Path(__file__).parents[2] / "examples" / "reproduce.py"
WRITERS = {
    "crema_d": write_crema_d,
    "ave": write_ave,
    "kinetics_sound": write_kinetics_sound,
}
SMALL = ["--epochs", "1", "--batch-size", "8", "--device", "cpu"]
SMALL += ["--checkpoint", "ast=robustmm/tiny-ast", "clip=robustmm/tiny-clip"]
SMALL += ["siglip=robustmm/tiny-clip"]


@pytest.fixture
def reproduce(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(SCRIPT.parent)

    def call(data_set, *options):
        root = tmp_path / data_set
        if not root.exists():
            root.mkdir()
            WRITERS[data_set](root)
        words = [data_set, "--root", str(root), *SMALL, *options]
        words += ["--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
        return runpy.run_path(str(SCRIPT), run_name="__main__")

    return call


@pytest.fixture
def fits(monkeypatch):
    """Rows, validation rows and parameters of each fit; nothing is trained."""
    calls = []

    def fit(self, X, y, validation_data=None):
        calls.append((X, validation_data, self.get_params(deep=False)))
        self.classes_ = np.unique(y)
        self.history_ = pd.DataFrame({"dur": [0.0]})
        self.n_trainable_parameters_ = 157_000
        return self

    monkeypatch.setattr(CMPTClassifier, "fit", fit)
    monkeypatch.setattr(
        CMPTClassifier, "predict", lambda self, X: [self.classes_[0]] * len(X)
    )
    return calls


def test_a_command_fills_the_tables_of_crema_d(
    reproduce, capsys, monkeypatch, tmp_path
):
    command = ["crema_d", "--methods", "cmpt", "--seeds", "0"]
    reproduce(*command)
    printed = capsys.readouterr().out
    assert "train 32: 32 complete, 0 without video, 0 without audio" in printed
    assert "video    100%, test  4: 0 complete, 4 without video, 0 without" in printed
    assert "of 6698 training rows and 744 test rows, here are 32 and 4: no" in printed
    assert "accuracy in percent, 0% blanked" in printed
    assert printed.index("Trained parameters in millions") < printed.index("0.157")
    table = pd.read_csv(tmp_path / "out" / "crema_d_table.csv")
    assert table["tested"].tolist() == ["complete", "video", "audio", "both"]
    np.testing.assert_array_equal(table["published"], [88.84, 67.20, 76.21, np.nan])
    assert table["measured"].between(0, 100).all()
    runs = tmp_path / "out" / "crema_d_runs.csv"
    record = pd.read_csv(runs).iloc[0]
    assert record["checkpoint"] == "robustmm/tiny-ast robustmm/tiny-clip"
    before = runs.read_text()
    monkeypatch.setattr(CMPTClassifier, "fit", None)
    reproduce(*command)
    assert runs.read_text() == before


def test_the_variants_have_the_figures_of_their_tables(reproduce, fits, tmp_path):
    names = ["cmpt", "cmpt-rank-2", "cmpt-vera", "cmpt-siglip", "cmpt-lambda-0.3"]
    reproduce("ave", "--seeds", "0", "--methods", *names)
    paper = CMPTClassifier.PAPER["audio-video"]
    told = [{k: v for k, v in of.items() if paper.get(k) != v} for *_, of in fits]
    assert told[1]["rank"] == told[1]["alpha"] == 2
    assert told[2]["adapter"] == "vera"
    assert told[3]["video_backbone"] == "robustmm/tiny-clip"
    assert told[4]["lambda_align"] == 0.3
    assert "rank" not in told[4]
    table = pd.read_csv(tmp_path / "out" / "ave_table.csv").set_index("method")
    found = table["published"].dropna().groupby("method", sort=False).agg(list)
    assert found.tolist() == [
        [96.77, 85.21, 84.58],
        [96.77, 85.07, 84.30],
        [96.27, 89.05, 90.05],
        [94.78, 86.32, 30.60],
        [96.52, 84.82, 85.32],
    ]


def test_holes_go_by_the_names_of_the_modalities(reproduce, fits, tmp_path):
    command = ["kinetics_sound", "--seeds", "0"]
    reproduce(*command, "--rate", "0.5", "--scenarios", "video", "both")
    assert [X.isna().sum().to_dict() for X, *_ in fits] == [
        {"audio": 0, "video": 4},
        {"audio": 2, "video": 2},
    ]
    # Tests are as much blanked unless they have rates of their own.
    runs = pd.read_csv(tmp_path / "out" / "kinetics_sound_runs.csv")
    assert runs["test_rate"].eq(0.5).all()
    assert runs["tested"].tolist() == ["video", "audio", "both"] * 2
    assert runs["test_rows"].eq(4).all()  # Kinetics' validation films
    with pytest.raises(SystemExit, match="there is no split 'dev'"):
        reproduce(*command, "--select", "official")


def test_other_rows_and_files_make_another_run(reproduce, fits, tmp_path):
    reproduce("ave", "--seeds", "0")
    reproduce("ave", "--seeds", "0", "--select", "official")
    assert [len(X) for X, *_ in fits] == [8, 8]
    assert fits[1][1][0].index.tolist() == ["c10", "c11"]
    reproduce("ave", "--seeds", "0", "--shared", "drop")
    assert len(fits[2][0]) == 7
    reproduce("ave", "--seeds", "0", "--shared", "drop")
    assert len(fits) == 3
    (tmp_path / "ave" / "AVE" / "c1.mp4").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 clips of AVE are not there.*; --gaps"
    ):
        reproduce("ave", "--seeds", "0")
    reproduce("ave", "--seeds", "0", "--gaps")
    assert fits[3][0].isna().sum().tolist() == [1, 1]
    assert fits[3][2]["on_bad_image"] == "missing"


def test_lists_say_which_rows(reproduce, fits, capsys, tmp_path):
    for split, actors in {"train": (1010, 1020, 1003), "test": (1003,)}.items():
        rows = [f"{actor}_DFA_ANG_XX,ANG" for actor in actors]
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    lists = [f"{split}={tmp_path}/{split}.csv" for split in ("train", "test")]
    reproduce("crema_d", "--seeds", "0", "--lists", *lists)
    assert fits[0][0].index.str[:4].tolist() == ["1010", "1020", "1003"]
    assert "here are 3 and 1.\n" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="there is no split 'dev'"):
        reproduce("crema_d", "--lists", *lists, "--select", "official")
    (tmp_path / "train.csv").write_text(
        "1010_DFA_ANG_XX\n1020_DFA_ANG_XX\n1004_DFA_SAD_XX"
    )
    reproduce("crema_d", "--seeds", "0", "--lists", *lists)
    assert len(fits) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lists", "train=a.csv"], "--lists must be train=FILE test=FILE"),
        (["--lists", "train", "test"], "--lists must be train=FILE test=FILE"),
        (["--shared", "drop"], "--shared says nothing of crema_d"),
        (["--text-length", "40"], "--text-length says nothing of crema_d"),
        (["--scenarios", "text"], "must be among video, audio, both, got text"),
        (["--methods", "mora"], "--methods of crema_d must be among cmpt"),
    ],
)
def test_options_of_other_data_sets_are_refused(reproduce, capsys, options, message):
    with pytest.raises(SystemExit):
        reproduce("crema_d", *options)
    assert message in capsys.readouterr().err
