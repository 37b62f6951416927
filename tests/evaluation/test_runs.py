"""Tables of rows, folds and seeds; plans carried out in every fold."""

import numpy as np
import pandas as pd
import pytest
from evaluation_cases import Reader, count_holes, labelled_cells
from joblib import parallel_config, register_parallel_backend
from joblib.parallel import ThreadingBackend
from sklearn.model_selection import LeaveOneGroupOut, ShuffleSplit
from sklearn.utils.parallel import delayed

from robustmm.evaluation._runs import (
    Table,
    draw_seeds,
    fit_and_score,
    run_jobs,
    score_plans,
)
from robustmm.evaluation._scoring import Scorer
from robustmm.missingness import missing_table


def table_of(n=12, groups=None):
    X, y = labelled_cells(n)
    return Table(X, y, groups)


def first_texts(count):
    """A draw that takes the first texts, whatever the seed."""

    def draw(n, random_state=None, groups=None):
        return np.where(np.arange(n) < count, 1, 0)

    return draw


def every_text(n, random_state=None, groups=None):
    return np.ones(n, dtype=int)


# A table ----------------------------------------------------------------------------


def test_rows_are_taken_with_their_labels_and_groups():
    table = table_of(6, groups=list("aabbcc"))
    for at in (np.array([4, 1]), np.arange(6) % 4 == 1):
        taken = table.take(at)
        assert taken.X.index.tolist() == np.arange(6)[at].tolist()
        assert taken.y.tolist() == table.y[at].tolist()
        assert taken.groups.tolist() == np.array(list("aabbcc"))[at].tolist()
    assert table_of().take([0]).groups is None


@pytest.mark.parametrize("kind", [list, pd.Series, pd.DataFrame])
def test_labels_of_any_kind_are_taken_by_position(kind):
    X, y = labelled_cells(6)
    labels = kind(y)
    if not isinstance(labels, list):
        labels.index = list("fedcba")
    taken = Table(X, labels).take(np.array([5, 0])).y
    assert np.ravel(taken).tolist() == [y[5], y[0]]


def test_blanking_makes_a_new_table():
    table = table_of()
    blanked = table.blank(first_texts(3), seed=0)
    assert blanked.X["text"].isna().tolist() == [True] * 3 + [False] * 9
    assert blanked.y is table.y
    assert not table.X.isna().any(axis=None)
    assert table.blank(None, seed=0) is table


def test_a_draw_gets_the_size_the_seed_and_the_groups():
    seen = []

    def draw(n, **options):
        seen.append((n, options))
        return np.zeros(n, dtype=int)

    table = table_of(4, groups=[1, 1, 2, 2])
    table.blank(draw, seed=7)
    assert seen == [(4, {"random_state": 7, "groups": [1, 1, 2, 2]})]


def test_other_columns_are_blanked_under_their_names():
    X, y = labelled_cells(4)
    X = X.rename(columns={"image": "photo", "text": "title"})
    table = Table(X, y, image_column="photo", text_column="title")
    assert table.blank(every_text, seed=0).X["title"].isna().all()
    with pytest.raises(ValueError, match="X must have a column 'text'"):
        Table(X, y, image_column="photo")


def test_what_is_no_table_is_refused():
    X, y = labelled_cells(4)
    with pytest.raises(TypeError, match="must be a pandas DataFrame, got list"):
        Table(X.to_numpy().tolist(), y)
    for labels, groups in ((y[:3], None), (y, [1, 2])):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            Table(X, labels, groups)


# Folds and seeds --------------------------------------------------------------------


def test_folds_are_stratified_and_groups_stay_together():
    for train, test in table_of().split(3):
        assert not set(train) & set(test)
        assert np.unique(table_of().y[test], return_counts=True)[1].tolist() == [2, 2]
    groups = np.repeat(np.arange(6), 2)
    for cv in (None, 3):
        folds = table_of(12, groups).split(cv)
        assert len(folds) == (cv or 5)
        assert all(not set(groups[a]) & set(groups[b]) for a, b in folds)


def test_a_splitter_and_given_folds_are_taken_as_they_are():
    once = ShuffleSplit(1, test_size=0.25, random_state=0)
    ((train, test),) = table_of().split(once)
    assert (len(train), len(test)) == (9, 3)
    given = [(np.array([0, 1]), np.array([2]))]
    assert table_of(12, groups=range(12)).split(given) == given
    assert len(table_of(12, groups=list("aab" * 4)).split(LeaveOneGroupOut())) == 2


def test_seeds_repeat_for_an_int_and_go_on_for_a_generator():
    assert draw_seeds(3, 4) == draw_seeds(3, 4) != draw_seeds(4, 4)
    assert draw_seeds(3, 4)[:2] == draw_seeds(3, 2)
    for generator in (np.random.default_rng(0), np.random.RandomState(0)):
        assert draw_seeds(generator, 4) != draw_seeds(generator, 4)
    assert all(type(seed) is int for seed in draw_seeds(np.random.default_rng(0), 3))


# Plans ------------------------------------------------------------------------------


def test_a_clone_is_fitted_once_and_scored_for_each_draw():
    reader = Reader(uses=["text"])
    scores = fit_and_score(
        reader,
        Scorer(reader, "accuracy", table_of().y),
        table_of(8),
        table_of(10),
        first_texts(5),
        [None, first_texts(4), every_text],
        seeds=(0, 1),
    )
    assert [s["score"] for s in scores] == [1.0, 0.6, 0.0]
    assert not hasattr(reader, "seen_")


def plans_of(*draws):
    return [(None, draws, [{"draw": i} for i in range(len(draws))])]


def run(plans, n_jobs=None):
    """Carry out plans in two folds; the score counts the texts that are missing."""
    table = table_of()
    return score_plans(
        Reader(),
        table,
        plans,
        cv=2,
        scorer=Scorer(Reader(), count_holes("text"), table.y),
        random_state=0,
        n_jobs=n_jobs,
        verbose=0,
        name="run",
    )


def test_there_is_a_row_per_fold_plan_and_draw():
    plans = [*plans_of(None, every_text), (None, [None], [{"draw": "alone"}])]
    frame = run(plans)
    assert list(frame) == ["draw", "fold", "score"]
    assert frame["draw"].tolist() == [0, 1, "alone"] * 2
    assert frame["fold"].tolist() == [0] * 3 + [1] * 3
    assert frame["score"].tolist() == [0, 6, 0] * 2


def test_all_plans_of_a_fold_draw_from_the_same_seeds_and_folds_from_others():
    seen = []

    def draw(n, random_state, groups=None):
        seen.append(random_state)
        return missing_table(n, 0.5, "text", random_state)

    run([(draw, [draw], [{}]), (draw, [draw], [{}])])
    first, second = seen[:4], seen[4:]
    assert first[:2] == first[2:]
    assert second[:2] == second[2:]
    assert len(set(seen)) == 4  # two folds, training and test rows


def test_two_jobs_give_the_rows_in_the_same_order():
    plans = plans_of(None, every_text, first_texts(2))
    with parallel_config("threading"):
        two = run(plans, n_jobs=2)
    pd.testing.assert_frame_equal(run(plans), two)


def test_jobs_are_shown_on_demand_and_their_errors_are_raised(capsys):
    def fail():
        raise RuntimeError("in a job")

    calls = [delayed(len)("a" * n) for n in (3, 1)]
    assert run_jobs(calls, 2, None, 0, "quiet") == [3, 1]
    assert capsys.readouterr().err == ""
    assert run_jobs(calls, 2, None, 1, "counting") == [3, 1]
    assert "counting: 100%" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="in a job"):
        run_jobs([delayed(fail)()], 1, None, 0, "quiet")


def test_a_backend_without_generators_runs_them_too():
    class Whole(ThreadingBackend):
        supports_return_generator = False  # as Ray's

    register_parallel_backend("whole", Whole)
    calls = [delayed(len)("a" * n) for n in (3, 1)]
    with parallel_config("whole", n_jobs=2):
        assert run_jobs(calls, 2, None, 0, "whole") == [3, 1]
