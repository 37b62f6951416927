"""Bars of factors and distributions of cosines show what they were given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from contract import frame_with_holes, small

from robustmm import (
    DeLoClassifier,
    FactorUsageDisplay,
    MAPClassifier,
    QueryAlignmentDisplay,
)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def usage_frame(n_tasks=2, size=3):
    index = pd.MultiIndex.from_product(
        [range(n_tasks), range(size)], names=["task", "factor"]
    )
    columns = pd.MultiIndex.from_product([["image", "text"], ["a", "b"]])
    values = np.random.default_rng(0).random((len(index), 4))
    return pd.DataFrame(values, index, columns)


@pytest.mark.parametrize("task", [None, 1])
def test_a_bar_is_the_mean_of_both_sides(task):
    usage = usage_frame()
    display = FactorUsageDisplay.from_frame(usage, task=task)
    tasks = [0, 1] if task is None else [task]
    for modality, bars in display.bars_.items():
        heights = [bar.get_height() for bar in bars]
        expected = [
            np.mean([usage.loc[(t, f), modality].mean() for t in tasks])
            for f in range(3)
        ]
        np.testing.assert_allclose(heights, expected)
    words = "all tasks" if task is None else "task 1"
    assert words in display.ax_.get_xlabel()


def test_tasks_without_rows_do_not_count():
    usage = usage_frame()
    usage.loc[1] = np.nan
    every = FactorUsageDisplay.from_frame(usage).values
    first = FactorUsageDisplay.from_frame(usage, task=0).values
    np.testing.assert_allclose(every, first)


def test_from_estimator_draws_its_usage_where_it_is_told():
    X, y = frame_with_holes()
    fitted, ax = small(DeLoClassifier).fit(X, y), plt.subplots()[1]
    display = FactorUsageDisplay.from_estimator(fitted, X, ax=ax)
    assert display.ax_ is ax
    # As many are selected in each pool as the rank says.
    np.testing.assert_allclose(display.values.sum(), fitted.rank)


def test_queries_of_an_estimator_are_drawn_by_group():
    X, y = frame_with_holes()
    fitted, ax = small(DeLoClassifier).fit(X, y), plt.subplots()[1]
    groups = np.where(np.arange(len(X)) % 2, "odd", "even")
    display = QueryAlignmentDisplay.from_estimator(fitted, X, groups, ax=ax)
    assert display.ax_ is ax
    complete = X["image"].notna() & X["text"].notna()
    sizes = {name: len(values) for name, values in display.cosines.items()}
    assert sizes == {n: (complete & (groups == n)).sum() for n in ("even", "odd")}


def test_cosines_are_those_of_complete_rows():
    vectors = np.random.default_rng(0).normal(size=(8, 2, 5))
    vectors[3, 1] = np.nan
    display = QueryAlignmentDisplay.from_vectors(vectors, [0, 1] * 4)
    image, text = vectors[2]
    cosine = image @ text / np.linalg.norm(image) / np.linalg.norm(text)
    assert display.cosines["0"][1] == pytest.approx(cosine)
    assert [len(values) for values in display.cosines.values()] == [4, 3]
    assert len(QueryAlignmentDisplay.from_vectors(vectors).cosines) == 1
    texts = [t.get_text() for t in display.ax_.get_legend().get_texts()]
    assert texts == ["0", "1"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: FactorUsageDisplay.from_frame(pd.DataFrame()), "usage must have rows"),
        (
            lambda: FactorUsageDisplay.from_frame(usage_frame(), task=5),
            r"task must be one of \[0, 1\], got 5",
        ),
        (lambda: QueryAlignmentDisplay.from_vectors(np.ones((3, 4))), r"\(n, 2, d\)"),
        (
            lambda: QueryAlignmentDisplay.from_vectors(np.ones((3, 2, 4)), [1]),
            "groups must have 3 entries, got 1",
        ),
        (
            lambda: QueryAlignmentDisplay.from_vectors(np.full((3, 2, 4), np.nan)),
            "a row with both queries",
        ),
    ],
)
def test_unusable_arguments_are_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
    with pytest.raises(TypeError, match=r"must have factors, .* got MAPClassifier"):
        FactorUsageDisplay.from_estimator(MAPClassifier(), frame_with_holes(4)[0])
    with pytest.raises(TypeError, match=r"must have query vectors, .* MAPClassifier"):
        QueryAlignmentDisplay.from_estimator(MAPClassifier(), frame_with_holes(4)[0])
