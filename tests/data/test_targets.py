"""Labels of any type to numbers."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import config_context

from robustmm.data.targets import check_sum, encode_known, encode_targets, mean_one
from robustmm.data.task_labels import TaskLabels


@pytest.mark.parametrize("dtype", [object, "str", "string", "category"])
def test_string_labels_of_any_dtype(dtype):
    targets = encode_targets(pd.Series(["b", "a", "b"], dtype=dtype))
    assert list(targets.classes) == ["a", "b"]
    assert targets.encoded.tolist() == [1, 0, 1]
    assert targets.encoded.dtype == np.int64


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, pd.DataFrame])
def test_indicators(kind):
    targets = encode_targets(kind(np.array([[0, 1, 1], [1, 0, 0]])))
    assert targets.multilabel
    assert list(targets.classes) == [0, 1, 2]
    np.testing.assert_array_equal(targets.encoded, [[0, 1, 1], [1, 0, 0]])
    np.testing.assert_allclose(targets.prior(np.array([1.0, 3.0])), [0.75, 0.25, 0.25])


def test_prior_is_weighted():
    targets = encode_targets(["a", "b", "b"])
    np.testing.assert_allclose(targets.prior(np.array([2.0, 1, 1])), [0.5, 0.5])


def test_balanced_weights_and_labels_as_keys():
    targets = encode_targets(["a", "b", "b", "b"])
    ones = np.ones(4)
    balanced = targets.weights("balanced", ones)
    np.testing.assert_allclose(balanced, [2, 2 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(targets.weights({"a": 5}, ones), [5, 1, 1, 1])
    assert targets.weights(None, ones) is ones


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({"a": -1, "b": 1}, r"class_weight\['a'\] must be in \[0, inf\), got -1"),
        ({"a": 1, "b": np.inf}, r"class_weight\['b'\] must be in .*, got inf"),
        ({"a": 1, "b": np.nan}, r"class_weight\['b'\] must be in .*, got nan"),
        (
            {"a": 0, "b": 0.0},
            r"class_weight must not be zero .* got {'a': 0, 'b': 0.0}",
        ),
        ({"a": 0, "b": 0, "c": 1}, "class_weight must not be zero for every class"),
        ({"a": 2, "B": 3}, r"of y, got \['B'\], which .* no weight for \['b'\]"),
        ({0: 2, 1: 3}, r"of y, got \[0, 1\], .* no weight for \['a', 'b'\]"),
        ("auto", "class_weight must be None, \"balanced\", or a dict .* got 'auto'"),
        ([1, 2], r"class_weight must be None, .* got \[1, 2\]"),
    ],
)
def test_class_weights_that_cannot_be_used(class_weight, message):
    targets = encode_targets(["a", "b", "b", "b"])
    with pytest.raises(ValueError, match=message):
        targets.weights(class_weight, np.ones(4))


def test_a_class_weight_that_is_no_number():
    with pytest.raises(
        TypeError, match=r"class_weight\['a'\] must be a number, got '2'"
    ):
        encode_targets(["a", "b"]).weights({"a": "2", "b": 1}, np.ones(2))


def test_class_weights_of_absent_classes_are_those_of_other_folds_or_tasks():
    targets = encode_targets(["a", "b"], classes=np.array(["c"]))
    given = {"a": 2, "b": 0, "rare": 9}
    np.testing.assert_array_equal(targets.weights(given, np.ones(2)), [2, 0])


def test_class_weights_of_several_labels():
    targets = encode_targets(np.array([[0, 1], [1, 1], [1, 0]]))
    given = [{0: 1, 1: 2}, {0: 1, 1: 3}]
    np.testing.assert_array_equal(targets.weights(given, np.ones(3)), [3, 6, 2])
    with pytest.raises(
        ValueError, match=r"class_weight\[1\]\[1\] must be in .* got -3"
    ):
        targets.weights([{0: 1, 1: 2}, {0: 1, 1: -3}], np.ones(3))
    with pytest.raises(ValueError, match="class_weight should be a list of dict"):
        targets.weights({0: 1, 1: 2}, np.ones(3))


def test_weights_beyond_what_floats_hold_have_no_finite_sum():
    targets = encode_targets(["a", "b"])
    weights = targets.weights({"a": 1e200, "b": 1}, np.array([1e200, 1]))
    with pytest.raises(ValueError, match=r"^w must have a sum in .*1e\+300\], got inf"):
        check_sum("w", weights)


@pytest.mark.parametrize("weights", [[0, 0], [5e-324, 0], [1e308, 1e308], [np.nan, 1]])
def test_sums_that_weights_cannot_be_divided_by(weights):
    with pytest.raises(
        ValueError, match=r"must have a sum in \[1e-300, 1e\+300\], got"
    ):
        check_sum("sample_weight", np.array(weights))


def test_sums_that_they_can():
    for size in (1e-299, 1, 1e299):
        check_sum("sample_weight", np.full(3, size))


def test_weights_get_a_mean_of_one_over_the_rows_that_count():
    weights = mean_one(np.array([1e-250, 3e-250, 1e250]), np.array([0, 1]))
    assert weights.tolist() == [0.5, 1.5, 0]
    assert weights.dtype == np.float32
    with pytest.raises(ValueError, match=r"^sample_weight times .* got 0\.0"):
        mean_one(np.array([0, 0, 1.0]), np.array([0, 1]))


def test_a_matrix_of_other_numbers_is_refused():
    with pytest.raises(ValueError, match="indicator matrix of zeros and ones"):
        encode_targets(np.array([[0, 2], [1, 0]]))


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        lambda y: np.array(y, dtype=object),
        lambda y: np.array(y, dtype=object)[:, None],
        lambda y: pd.Series(y, dtype=object),
        lambda y: pd.Series(pd.Categorical(y)),
    ],
)
@pytest.mark.parametrize(
    ("y", "shown"),
    [
        (["a", 1], "'a' and 1"),
        ([1, "a"], "1 and 'a'"),
        ([1.5, "a"], "1.5 and 'a'"),
        ([True, "a"], "True and 'a'"),
        ([b"a", "a"], "b'a' and 'a'"),
        (["a", pd.Timestamp("2026-01-01")], r"'a' and Timestamp\('2026"),
    ],
)
@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
def test_labels_of_several_types_are_refused(make, y, shown):
    with pytest.raises(
        ValueError, match=f"^y must have labels of one type, got {shown}"
    ):
        encode_targets(make(y * 2))


@pytest.mark.parametrize("y", [[True, 2, 0], [1, 2.0], np.array([1, 2.5, 1]) * 2])
def test_numbers_of_several_types_are_numbers(y):
    assert encode_targets(y).classes.tolist() == sorted(set(y))


@pytest.mark.parametrize(
    ("y", "null"),
    [
        (np.array(["2026-01-01", "NaT"], dtype="datetime64[D]"), ".*'NaT'.*"),
        (np.array([1, "NaT"], dtype="timedelta64[s]"), ".*'NaT'.*"),
        (pd.Series(pd.to_datetime(["2026-01-01", None])), ".*'NaT'.*"),
        (["a", float("nan")], "nan"),
        (("a", None), "None"),
        ([1.0, np.nan], r".*nan\)?"),
        (pd.Series(["a", None], dtype="string"), "<NA>"),
        (pd.Series([1, None], dtype="Int64"), ".*(nan|NA).*"),
    ],
)
@pytest.mark.parametrize("assume_finite", [False, True])
def test_rows_without_a_label_are_refused(y, null, assume_finite):
    message = f"^Input y contains NaN: .* label, got {null} at position 1"
    with (
        config_context(assume_finite=assume_finite),
        pytest.raises(ValueError, match=message),
    ):
        encode_targets(y)


def test_dates_may_be_labels():
    days = np.array(["2026-01-02", "2026-01-01", "2026-01-02"], dtype="datetime64[D]")
    targets = encode_targets(days)
    assert targets.encoded.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(targets.classes, days[1:])


@pytest.mark.parametrize("classes", [[1, 2], ["c", 1]])
def test_announced_classes_are_of_the_type_of_the_labels(classes):
    with pytest.raises(ValueError, match=r"labels of one type, got .[ac]. and 1"):
        encode_targets(["a", "b"], classes=classes)
    with pytest.raises(ValueError, match=r"labels of one type, got .[ac]. and 1"):
        TaskLabels().encode(["a", "b"], classes)


@pytest.mark.parametrize("y", [[], np.zeros((3, 0)), np.zeros((0, 2))])
def test_no_label_at_all_is_refused(y):
    with pytest.raises(ValueError, match=r"a label at least, got shape \("):
        encode_targets(y)


def test_announced_classes_get_an_output():
    targets = encode_targets(["b", "b"], classes=np.array(["a", "ccc"]))
    assert list(targets.classes) == ["a", "b", "ccc"]
    assert targets.encoded.tolist() == [1, 1]
    np.testing.assert_allclose(targets.prior(np.ones(2)), [0, 1, 0])


def test_a_single_column_may_be_an_indicator():
    column = pd.DataFrame({"war": [0, 1, 0]})
    assert not encode_targets(column["war"]).multilabel
    targets = encode_targets(column, multilabel=True)
    assert targets.encoded.tolist() == [[0], [1], [0]]
    assert list(targets.classes) == ["war"]


def test_further_labels_are_encoded_among_the_known_ones():
    known = encode_targets(["b", "a", "c"])
    found = encode_known(["c", "c"], known)
    assert found.encoded.tolist() == [2, 2]
    assert found.classes.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"among the 3 that are learned, got \['d'\]"):
        encode_known(["a", "d"], known)
    with pytest.raises(ValueError, match="labels of one type"):
        encode_known([1, 2], known)


def test_further_indicators_have_the_known_columns():
    table = pd.DataFrame({"x": [1, 0], "y": [1, 1]})
    known = encode_targets(table)
    assert encode_known(table[:1], known).encoded.tolist() == [[1, 1]]
    assert encode_known(table.to_numpy(), known).encoded.tolist() == [[1, 1], [0, 1]]
    for wrong in (table[["y", "x"]], table[["x"]], table.to_numpy()[:, :1]):
        with pytest.raises(ValueError, match="must have the columns that are learned"):
            encode_known(wrong, known)
    plain = encode_targets(table.to_numpy())
    assert encode_known(table, plain).encoded.tolist() == [[1, 1], [0, 1]]


def test_a_single_class_is_enough_where_one_is_asked_for():
    targets = encode_targets(["a", "a"], n_least=1)
    assert (targets.classes.tolist(), targets.encoded.tolist()) == (["a"], [0, 0])
    with pytest.raises(ValueError, match="only one class: 'a'"):
        encode_targets(np.array(["a", "a"], dtype=object))
