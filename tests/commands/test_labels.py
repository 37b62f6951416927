"""Labels of cells, and back."""

import numpy as np
import pandas as pd
import pytest

from robustmm.commands.labels import join_labels, read_labels


def test_single_labels_are_left_as_they_are():
    column = pd.Series([3, 1], index=[5, 6])
    pd.testing.assert_series_equal(read_labels(column), column)


def test_numbers_are_texts_where_the_model_knows_texts():
    assert read_labels(pd.Series([3, 1]), None, ["1", "3", "x"]).tolist() == ["3", "1"]


def test_indicators_have_the_models_columns_in_its_order():
    column = pd.Series(["b | a", None, " b"], index=[7, 8, 9])
    found = read_labels(column, "|", ["c", "b", "a"])
    assert found.columns.tolist() == ["c", "b", "a"]
    assert found.to_numpy().tolist() == [[0, 1, 1], [0, 0, 0], [0, 1, 0]]
    assert found.index.tolist() == [7, 8, 9]


@pytest.mark.parametrize("separator", [None, "|"])
def test_a_label_that_the_model_lacks_is_named(separator):
    with pytest.raises(ValueError, match=r"those of the model, .*got \['z'\]"):
        read_labels(pd.Series(["a", "z"]), separator, ["a", "b"])


def test_a_row_without_its_one_label_is_named():
    column = pd.Series(["a", None, None], index=[10, 11, 12])
    with pytest.raises(ValueError, match=r"got 2 without one, .* first is row 11"):
        read_labels(column)


def test_a_separator_must_be_there():
    with pytest.raises(ValueError, match="--labels-separator must be a text, got ''"):
        read_labels(pd.Series(["a"]), "")


def test_joining_is_the_way_back():
    column = pd.Series(["a|b", "", "b"])
    indicators = read_labels(column, "|")
    joined = join_labels(indicators.to_numpy(), indicators.columns, "|")
    assert joined == column.tolist()
    assert join_labels(np.array([[1, 1]]), [1, 2], "; ") == ["1; 2"]
