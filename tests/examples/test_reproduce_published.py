"""The published figures of clips, by what their numbers of rows and classes allow."""

import importlib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
N_CLASSES = {"crema_d": 6, "kinetics_sound": 31}


@pytest.fixture
def figures(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("reproduce_published")


@pytest.mark.parametrize(
    ("data_set", "n_rows", "n_methods", "others"),
    [
        ("crema_d", 744, 6, []),
        ("kinetics_sound", 2594, 6, []),
        ("ave", 402, 11, [("cmpt", "audio"), ("cmpt-rank-2", "video")]),
    ],
)
def test_accuracies_are_shares_of_the_test_rows(
    figures, data_set, n_rows, n_methods, others
):
    # Single runs. Two of AVE's are no such shares in the paper either.
    table = figures.clip_figures(data_set).set_index("method")
    assert table.index.is_unique
    assert len(table) == n_methods
    found = table[["audio", "video", "both"]]
    share = 100 * (found / 100 * n_rows).round() / n_rows
    # Some are cut where others are rounded.
    odd = (found - share).abs().gt(0.0065).stack()
    assert odd[odd].index.tolist() == others


@pytest.mark.parametrize("data_set", N_CLASSES)
def test_parameters_are_those_of_the_adapters_and_the_head(figures, data_set):
    table = figures.clip_figures(data_set).set_index("method")["parameters"]
    rest = 769 * N_CLASSES[data_set] + 4 * 768
    for rank in (2, 4):
        expected = (147_456 * rank + rest) / 1e6
        assert table[f"cmpt-rank-{rank}"] == pytest.approx(expected, abs=6e-4)
    assert table["cmpt"] == pytest.approx((147_456 + rest + 1536) / 1e6, abs=6e-4)
    assert table.isna().to_dict()["cmpt-siglip"]  # printed nowhere


def test_figures_are_of_complete_training_only(figures):
    complete = figures.published("crema_d", 0.0, 1.0).set_index(["method", "tested"])
    assert complete["trained"].eq("complete").all()
    # What is tested without video is accuracy with audio only.
    assert complete["published"]["cmpt", "video"] == 67.20
    assert complete["published"]["cmpt", "audio"] == 76.21
    both = figures.published("kinetics_sound", 0.0, 0.0).set_index("method")
    assert both["published"]["cmpt"] == 91.21
    assert both["source"].eq("CMPT").all()
    assert len(figures.published("ave", 0.7, 0.7)) == 0
