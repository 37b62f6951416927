"""Labels of tasks that come one after another."""

import json
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from robustmm.data.task_labels import TaskLabels
from robustmm.storage.values import pack, unpack


def learned(*calls, weights=None):
    """What is known after some calls with labels."""
    labels = TaskLabels()
    for y in calls:
        given = np.ones(len(y)) if weights is None else np.asarray(weights, float)
        labels = labels.add(labels.encode(y), given)
    return labels


def tables():
    """Two tasks of indicators: columns b and a, then c."""
    first = pd.DataFrame({"b": [0, 1, 1], "a": [1, 0, 1]})
    return first, pd.DataFrame({"c": [1, 0, 0]})


def as_lists(tasks):
    return [task.tolist() for task in tasks]


# One label per row ------------------------------------------------------------------


def test_nothing_is_known_at_first():
    labels = TaskLabels()
    assert (list(labels.tasks), labels.current, labels.columns) == ([], -1, [])
    targets = labels.encode(["b", "a", "b"])
    assert (targets.classes.tolist(), targets.encoded.tolist()) == (
        ["a", "b"],
        [1, 0, 1],
    )


def test_new_labels_are_a_new_task_and_all_are_sorted():
    labels = learned(["x", "b"], ["c", "a"], ["z", "y"])
    assert as_lists(labels.tasks) == [["b", "x"], ["a", "c"], ["y", "z"]]
    assert labels.classes.tolist() == ["a", "b", "c", "x", "y", "z"]
    assert labels.columns == [[1, 3], [0, 2], [4, 5]]
    assert labels.current == 2


def test_a_task_may_bring_a_single_class():
    labels = learned(["a", "a"], ["c", "b"], ["d", "d"])
    assert as_lists(labels.tasks) == [["a"], ["b", "c"], ["d"]]
    assert labels.encode(["e", "e"]).encoded.tolist() == [0, 0]
    np.testing.assert_allclose(labels.prior, [1 / 3, 1 / 6, 1 / 6, 1 / 3])


def test_labels_of_any_columns_are_encoded_among_all():
    known = learned(tables()[0])
    found = known.encode_columns(pd.DataFrame({"c": [1, 0], "a": [0, 1]}))
    assert found.classes.tolist() == ["b", "a", "c"]
    np.testing.assert_array_equal(found.encoded, [[np.nan, 0, 1], [np.nan, 1, 0]])
    with pytest.raises(ValueError, match="must have the columns that are known"):
        known.encode_columns(np.eye(3, dtype=int))


def test_encoded_labels_are_positions_within_their_task():
    labels = learned(["x", "b"])
    assert labels.encode(["d", "a", "d"]).encoded.tolist() == [1, 0, 1]
    assert labels.encode(["x", "x"]).encoded.tolist() == [1, 1]


def test_known_labels_go_on_with_their_task():
    labels = learned([1, 2], [3, 4], [2, 2])
    assert as_lists(labels.tasks) == [[1, 2], [3, 4]]
    assert labels.current == 0


def test_the_prior_is_that_of_all_rows():
    labels = learned(["a", "b", "b"], ["c", "d", "d"], ["a", "a", "a"])
    np.testing.assert_allclose(labels.prior, [4 / 9, 2 / 9, 1 / 9, 2 / 9])


def test_rows_count_by_their_weights():
    labels = learned(["a", "b"], ["c", "d"], weights=[1, 3])
    np.testing.assert_allclose(labels.prior, [1 / 8, 3 / 8, 1 / 8, 3 / 8])


def test_announced_labels_belong_to_the_new_task():
    labels = TaskLabels()
    labels = labels.add(labels.encode(["b", "b"], classes=["a", "b"]), np.ones(2))
    assert labels.prior.tolist() == [0, 1]
    again = labels.add(labels.encode(["d", "c"], classes=["a", "e"]), np.ones(2))
    assert as_lists(again.tasks) == [["a", "b"], ["c", "d", "e"]]
    assert labels.add(labels.encode(["a", "a"]), np.ones(2)).current == 0


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a", "new"], r"new \['new'\] and known \['a'\]"),
        (["a", "c"], r"must belong to one task.*\[0, 1\]: \['a', 'c'\]"),
        ([0, 1], r"kind of the first call, one label per row.*\['a', 'b', 'c'\]"),
        ([[0, 1], [1, 0]], "kind of the first call, one label per row"),
        ([], "y must have a label at least"),
        (["a", None], "NaN"),
    ],
    ids=str,
)
def test_what_belongs_to_no_task_is_refused(y, message):
    with pytest.raises(ValueError, match=message):
        learned(["a", "b"], ["c", "d"]).encode(y)


def test_announcing_a_new_label_for_a_known_task_is_refused():
    with pytest.raises(ValueError, match=r"new \['z'\] and known \['a', 'b'\]"):
        learned(["a", "b"]).encode(["a", "b"], classes=["z"])


@pytest.mark.parametrize(
    "y", [[1, 2], [1.0, 2.0], [True, False], ["a", "b"]], ids=lambda y: str(y[0])
)
@pytest.mark.parametrize("kind", [np.array, pd.Series, list])
def test_labels_of_any_type_come_back(kind, y):
    labels = learned(kind(y))
    assert set(labels.classes.tolist()) == set(y)
    assert labels.encode(kind(y)).classes.dtype == labels.classes.dtype


# Several labels per row -------------------------------------------------------------


def test_indicators_stay_in_the_order_of_learning():
    labels = learned(*tables())
    assert labels.multilabel
    assert labels.classes.tolist() == ["b", "a", "c"]
    assert labels.columns == [[0, 1], [2]]
    np.testing.assert_allclose(labels.prior, [2 / 6, 2 / 6, 1 / 6])


def test_columns_in_another_order_are_put_in_that_of_the_task():
    first, _ = tables()
    targets = learned(*tables()).encode(first[["a", "b"]])
    assert targets.classes.tolist() == ["b", "a"]
    np.testing.assert_array_equal(targets.encoded, first)


def test_all_columns_are_needed_to_go_on():
    with pytest.raises(ValueError, match=r"all of its columns, \['b', 'a'\], got"):
        learned(*tables()).encode(pd.DataFrame({"a": [0, 1]}))


@pytest.mark.parametrize(
    "y", [["a", "b"], pd.Series([0, 1]), np.array([0, 1])], ids=type
)
def test_indicators_are_not_followed_by_single_labels(y):
    with pytest.raises(ValueError, match="first call, an indicator matrix"):
        learned(*tables()).encode(y)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_columns_without_names_go_on_with_the_first_task(kind):
    y = kind([[0, 1], [1, 0]])
    labels = learned(np.asarray([[0, 1], [1, 1]]))
    assert labels.encode(y).encoded.tolist() == [[0, 1], [1, 0]]
    assert labels.add(labels.encode(y), np.ones(2)).current == 0


def test_only_new_columns_with_a_positive_are_kept():
    known = learned(*tables())
    table = pd.DataFrame({"a": [1, 1], "d": [0, 1], "e": [0, 0], "f": [1, 0]})
    assert list(known.drop_columns(table)) == ["d", "f"]
    assert list(TaskLabels().drop_columns(table)) == ["a", "d", "f"]


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_columns_without_names_are_named_by_position(kind):
    kept = TaskLabels().drop_columns(kind([[0, 0, 1], [0, 1, 1]]))
    assert list(kept) == [1, 2]
    known = learned(kept)
    assert list(known.drop_columns(kind([[1, 1, 1]]))) == [0]


def test_a_single_column_is_an_indicator_only_after_indicators():
    column = np.array([["a"], ["b"]])
    assert TaskLabels().drop_columns(column) is column
    assert TaskLabels().drop_columns(["a", "b"]) == ["a", "b"]
    late = pd.DataFrame({"c": [0, 0]})
    assert learned(tables()[0]).drop_columns(late).shape == (2, 0)


# Kept by an estimator ---------------------------------------------------------------


def test_it_is_replaced_and_never_changed():
    labels = learned(["a", "b"])
    tasks, seen = list(labels.tasks), (labels.seen[0], dict(labels.seen[1]))
    labels.add(labels.encode(["c", "d"]), np.ones(2))
    labels.add(labels.encode(["a", "a"]), np.ones(2))
    assert as_lists(labels.tasks) == as_lists(tasks)
    assert (labels.seen, labels.current) == (seen, 0)
    with pytest.raises(FrozenInstanceError):
        labels.current = 3
    assert TaskLabels().seen == (0.0, {})


@pytest.mark.parametrize(
    "calls", [(["a", "b"], ["c", "d"]), ([1, 2], [3, 4]), tables()], ids=["s", "i", "m"]
)
def test_its_fields_are_saved_without_pickle(calls):
    labels, arrays = learned(*calls), {}
    names = ("tasks", "current", "multilabel", "seen")
    stored = [pack(getattr(labels, name), arrays, name) for name in names]
    stored = json.loads(json.dumps(stored))
    again = TaskLabels(*(unpack(value, arrays) for value in stored))
    np.testing.assert_array_equal(again.classes, labels.classes)
    np.testing.assert_array_equal(again.prior, labels.prior)
    assert again.encode(calls[0]).classes.tolist() == labels.tasks[0].tolist()
