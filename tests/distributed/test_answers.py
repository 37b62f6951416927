import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline

from robustmm.distributed.answers import (
    PartitionError,
    Question,
    answer_partition,
    answer_pieces,
    columns_needed,
    empty_answers,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*neither image nor text")


def test_labels_keep_index_order_and_type(probe, table):
    found = answer_partition(probe, table, 0, Question(keep=("key",), batch_rows=7))
    assert found.columns.tolist() == ["key", "prediction"]
    assert found.index.equals(table.index)
    assert (found["prediction"].to_numpy() == probe.predict(table)).all()
    empty = empty_answers(probe, Question(keep=("key",)), table[["key"]])
    assert found.dtypes.equals(empty.dtypes)


@pytest.mark.parametrize("method", ["predict_proba", "decision_function"])
@pytest.mark.parametrize("name", ["probe", "binary", "multilabel"])
def test_numbers_are_those_of_the_model(method, name, table, request):
    model = request.getfixturevalue(name)
    found = answer_partition(model, table, 0, Question(method, batch_rows=7))
    expected = getattr(model, method)(table).reshape(len(table), -1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtypes.equals(empty_answers(model, Question(method), table[[]]).dtypes)
    prefix = "proba" if method == "predict_proba" else "decision"
    single = name == "binary" and prefix == "decision"
    names = ["decision"] if single else [f"{prefix}_{c}" for c in model.classes_]
    assert found.columns.tolist() == names


def test_whole_numbers_stay_whole(binary, table):
    found = answer_partition(binary, table, 0, Question())
    assert found["prediction"].dtype == np.int64
    assert found["prediction"].tolist() == binary.predict(table).tolist()


def test_several_labels_are_a_column_each(multilabel, table):
    found = answer_partition(multilabel, table, 0, Question())
    assert found.columns.tolist() == ["prediction_0", "prediction_1"]
    assert (found.to_numpy() == multilabel.predict(table)).all()


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_a_partition_without_any_text_is_answered(probe, table, missing):
    blank = table.assign(text=missing)
    found = answer_partition(probe, blank, 0, Question())
    assert found["prediction"].nunique() == 1


def test_a_partition_without_rows_has_the_types_of_others(probe, table):
    question = Question(keep=("key",))
    found = answer_partition(probe, table.iloc[:0], 0, question)
    full = answer_partition(probe, table, 0, question)
    assert len(found) == 0
    assert found.dtypes.equals(full.dtypes)
    assert found.index.dtype == full.index.dtype


def test_a_bad_partition_is_named_with_its_rows(probe, table):
    cells = [None] * 13 + ["absent.png"] + [None] * 6
    bad = table.assign(image=pd.Series(cells, index=table.index, dtype=object))
    pieces = answer_pieces(probe, bad, 5, Question(batch_rows=10))
    assert len(next(pieces)) == 10
    message = "partition 5 cannot.*'r10' to 'r19': ValueError.*row 'r13': no such"
    with pytest.raises(PartitionError, match=message) as caught:
        next(pieces)
    # Workers send it by way of a pickle.
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.partition, str(again)) == (5, str(caught.value))


def test_only_columns_that_are_read_are_asked_for(probe):
    names = ["key", "text", "price", "image"]
    question = Question(keep=("key",))
    assert columns_needed(probe, question, names) == ["key", "text", "image"]
    with pytest.raises(ValueError, match="must have a column 'image'"):
        columns_needed(probe, question, ["key", "text"])
    with pytest.raises(ValueError, match="keep must not name an answer"):
        columns_needed(probe, Question(keep=("prediction",)), [*names, "prediction"])


def test_a_pipeline_gets_all_columns_unless_it_names_them(multilabel):
    class Asis(BaseEstimator):
        def transform(self, X):
            return X

    pipeline = make_pipeline(Asis(), multilabel)
    names = ["key", "text", "image"]
    if not hasattr(pipeline, "feature_names_in_"):
        assert columns_needed(pipeline, Question(), names) == names
    blank = pd.DataFrame(index=[])
    assert empty_answers(pipeline, Question(), blank).shape == (0, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "transform"}, "method must be one of"),
        ({"batch_rows": 0}, "batch_rows must be"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Question(**wrong)
