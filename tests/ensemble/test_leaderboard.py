"""The table: who, how good, how dear, and why not."""

import numpy as np
import pytest
from ensemble_cases import First, texts

from robustmm import AutoMultimodalClassifier
from robustmm.ensemble.baselines import TfidfClassifier
from robustmm.ensemble.leaderboard import check_records, leaderboard_frame


@pytest.fixture(scope="module")
def fitted():
    X, y = texts(120)
    X.loc[::4, "text"] = None
    X["image"] = [np.full((4, 4, 3), i, dtype=np.uint8) for i in range(120)]
    X.loc[1::4, "image"] = None
    pairs = [
        ("words", TfidfClassifier()),
        ("first", First(strength=0.6)),
        ("bad", First(fault=ValueError("no"))),
    ]
    return AutoMultimodalClassifier(candidates=pairs, random_state=0).fit(X, y)


def test_there_is_a_row_for_each_and_one_of_the_ensemble(fitted):
    board = fitted.leaderboard_
    assert set(board.index) == {"ensemble", "words", "first", "bad"}
    assert board.index[0] == "ensemble"
    assert board.index[-1] == "bad"
    assert board["score"].iloc[:-1].is_monotonic_decreasing
    weights = board["weight"].drop("ensemble")
    assert weights.sum() == pytest.approx(1)
    named = dict(zip(dict(fitted.members_), fitted.weights_, strict=True))
    assert weights[weights > 0].to_dict() == pytest.approx(named)


def test_scores_per_pattern_are_those_of_the_rows(fitted):
    row = fitted.leaderboard_.loc["words"]
    # The words of a row are there or not, whatever its image is.
    assert row["text_missing"] < row["complete"]
    assert 0 <= row["calibration_error"] <= 1
    shares = np.array([0.5, 0.25, 0.25])
    parts = row[["complete", "text_missing", "image_missing"]].to_numpy(float)
    assert row["score"] == pytest.approx(parts @ shares, abs=0.1)


def test_costs_are_there_where_there_was_a_fit(fitted):
    board = fitted.leaderboard_
    assert (board.loc[["words", "first"], "fit_seconds"] > 0).all()
    assert (board.loc[["words", "ensemble"], "predict_ms"] > 0).all()
    assert board.loc["words", "n_trained"] > 9
    assert board.loc["bad", ["fit_seconds", "n_trained", "score"]].isna().all()


def test_a_fresh_table_each_time(fitted):
    board = fitted.leaderboard_
    board["score"] = 0.0
    assert fitted.leaderboard_["score"].max() > 0


@pytest.mark.parametrize(
    "records",
    [
        None,
        [1],
        [{"name": "a"}],
        [{"name": "a", "score": 1.0, "run": "rm"}],
        [{"name": "a", "score": [1.0]}],
        [{"name": "a", "score": "high"}],
    ],
)
def test_forged_records_are_refused(records):
    with pytest.raises(ValueError, match="_leaderboard must be"):
        check_records(records)


def test_records_become_a_table_of_fixed_types():
    table = leaderboard_frame([{"name": "a", "score": 1.0, "epochs": 3}])
    check_records([{"name": "a", "score": 1.0, "epochs": 3}])
    assert str(table["epochs"].dtype) == "Int64"
    assert table.loc["a", "score"] == 1.0
