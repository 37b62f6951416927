"""The benchmark of stages on a few scenes: resumed, reported, and its splits."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / "examples" / "continual.py"
SPLITS = PROJECT / "docs" / "continual_splits.json"
SMALL = ["--rows", "4", "--test-rows", "4", "--epochs", "1", "--device", "cpu"]


@pytest.fixture
def benchmark(monkeypatch, tmp_path, capsys):
    def call(*options, small=SMALL):
        words = [str(SCRIPT), "--out", str(tmp_path), *small, *options]
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out

    return call


def test_runs_are_files_and_are_made_once(benchmark, tmp_path):
    methods = ["--methods", "L2P", "Class Gaussians", "Joint, head alone"]
    printed = benchmark(*methods)
    assert "3/3 Joint, head alone, both, seed 0" in printed
    assert (tmp_path / "continual_scenes.png").is_file()
    files = sorted(tmp_path.glob("continual/*/*.json"))
    assert len(files) == 3
    record = json.loads(files[-1].read_text())
    matrix = np.array(record["matrix"], dtype=float)
    assert matrix.shape == (5, 5)
    assert np.isnan(matrix[1, 0])
    assert len(record["seconds"]) == len(record["megabytes"]) == 5
    table = pd.read_csv(tmp_path / "continual_scenes.csv")
    assert {"AP", "FG", "FG diagonal", "task found"} <= set(table.columns)
    joint = table.set_index("method").loc["Joint, head alone"]
    assert np.isnan(joint["FG"])
    assert 0 <= joint["AP"] <= 1
    # Only read: what a run has written is what is reported.
    files[-1].write_text(json.dumps(record | {"task": 0.125}))
    assert "0.125" in benchmark(*methods, "--report")


def test_the_last_stage_may_come_first(benchmark, tmp_path):
    last = []
    for options in ([], ["--reverse"]):
        benchmark("--methods", "Class Gaussians", *options)
        folder = "scenes_4x1x8" + "_reverse" * len(options)
        (file,) = tmp_path.glob(f"continual/{folder}/*.json")
        matrix = np.array(json.loads(file.read_text())["matrix"], dtype=float)
        last.append(matrix[:, -1])
    # Class Gaussians know no order: the same rows end as the same model.
    np.testing.assert_allclose(last[1][::-1], last[0])


def test_rows_may_miss_what_their_stage_never_missed(benchmark, tmp_path):
    path = tmp_path / "splits.json"
    with pytest.raises(SystemExit):
        benchmark("--settings", "both", "unseen", "--write-splits", str(path))
    splits = json.loads(path.read_text())["scenes"]
    for number, stage in enumerate(splits["unseen"]["0"]):
        codes = {part: set(stage[part]["missing"]) for part in ("train", "test")}
        lost = {"train": "12"[number % 2], "test": "21"[number % 2]}
        assert codes == {part: {"0", code} for part, code in lost.items()}


def test_the_published_splits_are_what_the_seeds_draw(benchmark, tmp_path):
    path = tmp_path / "splits.json"
    words = ["--seeds", "0", "1", "2", "--settings", "both", "unseen"]
    with pytest.raises(SystemExit):
        benchmark(*words, "--write-splits", str(path), small=[])
    published = json.loads(SPLITS.read_text())
    assert json.loads(path.read_text())["scenes"] == published["scenes"]
    for table, n_stages in (("scenes", 5), ("fashion", 10)):
        for setting in ("both", "unseen"):
            for stages in published[table][setting].values():
                assert len(stages) == n_stages
                classes = [c for stage in stages for c in stage["classes"]]
                assert len(set(classes)) == len(classes)
                parts = [s[p] for s in stages for p in ("train", "test")]
                assert all(len(p["rows"]) == len(p["missing"]) for p in parts)
                rows = [row for part in parts for row in part["rows"]]
                assert len(set(rows)) == len(rows)


def test_splits_of_other_sizes_are_refused(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark("--splits", str(SPLITS), "--methods", "L2P")
    assert "the splits are of {'rows': 40" in capsys.readouterr().err
