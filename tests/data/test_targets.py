"""Labels of any type to numbers."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from robustmm.data.targets import encode_targets


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


def test_a_matrix_of_other_numbers_is_refused():
    with pytest.raises(ValueError, match="indicator matrix of zeros and ones"):
        encode_targets(np.array([[0, 2], [1, 0]]))


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
