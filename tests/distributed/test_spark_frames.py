import pandas as pd
import pytest

from robustmm.distributed.answers import Question
from robustmm.distributed.packing import Opening, pack_model
from robustmm.distributed.spark_frames import answer_batches, predict_spark

types = pytest.importorskip("pyspark.sql.types")
pytestmark = pytest.mark.filterwarnings("ignore:.*neither image nor text")


class Frame:
    """What is read of a Spark DataFrame, where no Java is started."""

    columns = ("key", "text", "image", "price")
    schema = types.StructType().add("key", "integer").add("text", "string")
    sparkSession = None

    def select(self, *names):
        self.selected = names
        return self

    def mapInPandas(self, answer, schema):
        self.answer = answer
        return schema


@pytest.mark.parametrize(
    ("name", "method", "expected"),
    [
        ("probe", "predict", "key:int,prediction:string"),
        ("binary", "predict", "key:int,prediction:bigint"),
        ("binary", "decision_function", "key:int,decision:double"),
        ("multilabel", "predict", "key:int,prediction_0:bigint,prediction_1:bigint"),
    ],
)
def test_the_schema_is_known_before_anything_is_computed(
    name, method, expected, request
):
    model, frame = request.getfixturevalue(name), Frame()
    question = Question(method, keep=("key",))
    schema = predict_spark(frame, pack_model(model), model, Opening("cpu"), question)
    assert schema.simpleString() == f"struct<{expected}>"
    assert frame.selected == ("`key`", "`text`", "`image`")


def test_batches_are_answered_one_by_one(probe, table):
    digest, content = pack_model(probe)
    answer = answer_batches(lambda: content, digest, Opening("cpu"), Question())
    batches = iter([table.iloc[:12], table.iloc[12:]])
    found = list(answer(batches))
    assert [len(part) for part in found] == [12, 8]
    labels = pd.concat(found)["prediction"]
    assert labels.tolist() == probe.predict(table).tolist()
    assert labels.index.tolist() == list(range(20))
