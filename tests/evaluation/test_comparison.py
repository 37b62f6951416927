"""The table of methods: the same rows for all, and numbers that can be worked out."""

import inspect

import numpy as np
import pandas as pd
import pytest
from contract import ToyClassifier
from evaluation_cases import HALVES, Reader, count_holes, labelled_cells, words
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from robustmm import compare_methods, missing_rate_curve
from robustmm.datasets import make_scenes

TEXTS = {"rate": 0.5, "scenario": "text"}
COLUMNS = [
    "score_mean",
    "score_sd",
    "fit_seconds",
    "predict_seconds",
    "n_trainable_parameters",
    "n_runs",
]


def test_one_line_per_method_in_the_order_given():
    X, y = labelled_cells()
    methods = {"texts": Reader(uses=["text"]), "all": Reader(), "none": Reader(uses=[])}
    table = compare_methods(
        methods, X, y, rate=0.5, scenario="text", cv=HALVES, seeds=[0, 1]
    )
    assert list(table) == COLUMNS
    assert table.index.tolist() == ["texts", "all", "none"]
    assert table.index.name == "method"
    assert table["score_mean"].tolist() == [0.5, 1.0, 0.0]
    assert table["score_sd"].tolist() == [0.0, 0.0, 0.0]
    assert table["n_runs"].tolist() == [2, 2, 2]
    assert table["n_trainable_parameters"].isna().all()
    assert table[["fit_seconds", "predict_seconds"]].gt(0).all(axis=None)


def test_mean_and_deviation_are_over_the_runs():
    X, y = labelled_cells()

    def seed_of(fitted, X, y):
        return {0: 0.2, 1: 0.4, 5: 0.9}[fitted.random_state]

    table, runs = compare_methods(
        {"a": Reader()},
        X,
        y,
        cv=HALVES,
        scoring=seed_of,
        seeds=[0, 1, 5],
        return_runs=True,
    )
    assert table.loc["a", "score_mean"] == pytest.approx(0.5)
    assert table.loc["a", "score_sd"] == pytest.approx(np.std([0.2, 0.4, 0.9], ddof=1))
    assert runs[["method", "seed", "fold", "score"]].to_numpy().tolist() == [
        ["a", 0, 0, 0.2],
        ["a", 1, 0, 0.4],
        ["a", 5, 0, 0.9],
    ]
    single = compare_methods({"a": Reader()}, X, y, seeds=[0])
    assert single["score_sd"].isna().all()


def test_all_methods_get_the_same_rows_and_other_seeds_other_ones():
    X, y = labelled_cells()
    seen = []

    def keep(fitted, X, y):
        seen.append((fitted.seen_, X))
        return 0.0

    methods = {"a": Reader(), "b": Reader()}
    compare_methods(methods, X, y, rate=0.5, scoring=keep, seeds=[0, 1])
    (a0, b0), (a1, _) = seen[:2], seen[2:]
    for mine, other in zip(a0, b0, strict=True):
        pd.testing.assert_frame_equal(mine, other)
    assert not a0[1].equals(a1[1])
    train, test = a0
    assert len(test) == 10
    assert not set(train.index) & set(test.index)
    assert test.isna().sum().tolist() == [2, 3]
    assert train.isna().sum().tolist() == [7, 8]
    # Both classes alike among the test rows.
    assert pd.Series(y[test.index]).value_counts().tolist() == [5, 5]


@pytest.mark.parametrize(
    ("holes", "train", "test"),
    [
        ({}, [0, 0], [0, 0]),
        ({"rate": 0.5, "scenario": "text"}, [0, 10], [0, 10]),
        ({"rate": 0.5, "scenario": "text", "train_rate": 0.1}, [0, 2], [0, 10]),
        (
            {"rate": 0.5, "scenario": "text", "train_scenario": "image"},
            [10, 0],
            [0, 10],
        ),
        ({"train_rate": 0.5, "train_scenario": "image"}, [10, 0], [0, 0]),
    ],
)
def test_what_training_and_test_rows_miss(holes, train, test):
    X, y = labelled_cells()
    scoring = {
        f"{rows} {column}": count_holes(column, rows)
        for rows in ("train", "test")
        for column in ("image", "text")
    }
    table = compare_methods(
        {"a": Reader()}, X, y, cv=HALVES, scoring=scoring, seeds=[3], **holes
    )
    means = table.filter(like="_mean").loc["a"].tolist()
    assert means == [*train, *test]


def test_groups_are_not_torn_apart():
    X, y = labelled_cells()
    groups = np.repeat(np.arange(10), 4)

    def overlap(fitted, X, y):
        return len(set(fitted.seen_.index // 4) & set(X.index // 4))

    table = compare_methods({"a": Reader()}, X, y, scoring=overlap, groups=groups)
    assert table["score_mean"].tolist() == [0]


def test_multilabel_targets_are_split_at_random():
    X, y = labelled_cells()
    Y = np.column_stack([y == "cat", y == "dog"]).astype(int)
    table = compare_methods(
        {"a": Reader()}, X, Y, seeds=[0], scoring=lambda e, X, y: y.shape[0]
    )
    assert table["score_mean"].tolist() == [10]


def test_ours_beside_a_pipeline_with_sizes():
    X, y = make_scenes(32, n_classes=2, random_state=0)
    toy = ToyClassifier("robustmm/tiny-clip")
    same = FunctionTransformer()
    methods = {"toy": toy, "behind a step": make_pipeline(same, toy), "words": words()}
    table, runs = compare_methods(
        methods, X, y, rate=0.5, seeds=[0], scoring="roc_auc", return_runs=True
    )
    sizes = table["n_trainable_parameters"]
    assert sizes.dtype == "Int64"
    assert sizes["toy"] == sizes["behind a step"] > 0
    assert pd.isna(sizes["words"])
    # The seed reaches the last step of the pipeline, too.
    scores = runs.set_index("method")["score"]
    assert scores["toy"] == scores["behind a step"]
    assert toy.random_state is None


def test_an_error_names_the_method():
    X, y = labelled_cells()

    class Broken(Reader):
        def fit(self, X, y):
            raise RuntimeError("out of ideas")

    with pytest.raises(RuntimeError, match="out of ideas") as caught:
        compare_methods({"good": Reader(), "bad": Broken()}, X, y, seeds=[7])
    assert caught.value.__notes__ == ["While evaluating the method 'bad' with seed 7."]


def test_what_cannot_be_compared_is_named(capsys):
    X, y = labelled_cells()
    with pytest.raises(ValueError, match=r"at least one estimator .* got 0 and 3"):
        compare_methods({}, X, y)
    with pytest.raises(ValueError, match="got 1 and 0"):
        compare_methods({"a": Reader()}, X, y, seeds=[])
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\], got 70"):
        compare_methods({"a": Reader()}, X, y, rate=70)
    with pytest.raises(ValueError, match=r"scenario must be one of .* got 'none'"):
        compare_methods({"a": Reader()}, X, y, rate=0.7, scenario="none")
    with pytest.raises(ValueError, match="train_scenario needs a rate"):
        compare_methods({"a": Reader()}, X, y, train_scenario="text")
    with pytest.raises(ValueError, match="must fit the task: 'r2'"):
        compare_methods({"a": Reader()}, X, y, scoring="r2")
    compare_methods({"a": Reader()}, X, y, seeds=[0], verbose=1)
    assert "compare_methods: 100%" in capsys.readouterr().err


def test_what_is_no_estimator_is_named():
    X, y = labelled_cells()
    with pytest.raises(TypeError, match=r"a mapping of names to .*, got list"):
        compare_methods([Reader()], X, y)
    for wrong in ("prior", None, Reader):
        with pytest.raises(TypeError, match=r"with a fit method, got 'b': .*"):
            compare_methods({"a": Reader(), "b": wrong}, X, y)


# The same arguments as other evaluations --------------------------------------------


def test_random_state_draws_as_many_seeds():
    X, y = labelled_cells()
    models = {"reader": Reader(uses=("text",))}

    def runs(**options):
        kept = compare_methods(models, X, y, rate=0.5, return_runs=True, **options)[1]
        return kept.drop(columns=["fit_seconds", "predict_seconds"])

    first, again, other = (runs(random_state=s) for s in (0, 0, 1))
    assert first.equals(again)
    assert first["seed"].nunique() == 3
    assert set(first["seed"]).isdisjoint(other["seed"])
    assert len(runs(random_state=np.random.default_rng(0), seeds=[0, 0])) == 2
    drawn = runs(seeds=first["seed"].tolist())
    assert drawn.equals(first)


@pytest.mark.slow
def test_jobs_give_the_same_in_the_same_order():
    X, y = labelled_cells()
    models = {"text": Reader(uses=("text",)), "image": Reader(uses=("image",))}
    alone, together = (
        compare_methods(models, X, y, rate=0.5, n_jobs=n, return_runs=True)[1]
        for n in (None, 2)
    )
    columns = ["method", "seed", "fold", "score"]
    assert alone[columns].equals(together[columns])


def test_both_take_the_same_arguments():
    shared = {"cv", "scoring", "groups", "image_column", "text_column", "n_jobs"}
    shared |= {"random_state", "verbose", "scenario", "train_rate", "train_scenario"}
    for function in (compare_methods, missing_rate_curve):
        assert shared <= set(inspect.signature(function).parameters)
