import dask
import numpy as np
import pandas as pd
import pytest

from robustmm.distributed import PartitionError, dask_frames, predict

dd = pytest.importorskip("dask.dataframe")
pytestmark = pytest.mark.filterwarnings("ignore:.*neither image nor text")


@pytest.fixture(autouse=True)
def _in_this_process():
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture
def frame(table):
    return dd.from_pandas(table, npartitions=4, sort=False)


@pytest.mark.parametrize("name", ["probe", "binary", "multilabel"])
def test_types_are_known_before_anything_is_computed(name, frame, table, request):
    model = request.getfixturevalue(name)
    answers = predict(model, frame, keep=["key"], device="cpu")
    found = answers.compute()
    assert answers.dtypes.equals(found.dtypes)
    assert answers.npartitions == 4
    assert found.index.tolist() == table.index.tolist()
    expected = model.predict(table).reshape(len(table), -1)
    assert (found.drop(columns="key").to_numpy() == expected).all()


def test_probabilities_are_those_of_the_model(probe, frame, table):
    found = predict(probe, frame, method="predict_proba", device="cpu").compute()
    np.testing.assert_allclose(found, probe.predict_proba(table), atol=1e-6)


def test_partitions_without_rows_or_texts_are_answered(probe, frame, table):
    some = frame[frame["key"] >= 12]
    found = predict(probe, some.assign(text=None), device="cpu").compute()
    assert len(found) == 8
    assert found["prediction"].nunique() == 1


def test_a_bad_partition_is_named(probe, table):
    cells = pd.Series(["absent.png"], index=["r13"])
    bad = dd.from_pandas(table.assign(image=cells), npartitions=4, sort=False)
    message = "partition 2 cannot.*'r10' to 'r14'.*row 'r13': no such file"
    with pytest.raises(PartitionError, match=message):
        predict(probe, bad, device="cpu").compute()


def test_a_column_that_is_absent_is_missed_at_once(probe, frame):
    with pytest.raises(ValueError, match="must have a column 'text'"):
        predict(probe, frame[["image"]])


def test_only_partitions_that_are_not_there_are_predicted(
    probe, frame, table, tmp_path, monkeypatch
):
    asked = []
    answer = dask_frames._answer

    def count(part, *args, partition_info=None, **options):
        asked.append(partition_info["number"])
        return answer(part, *args, partition_info=partition_info, **options)

    monkeypatch.setattr(dask_frames, "_answer", count)
    files = predict(probe, frame, output=tmp_path / "out", device="cpu")
    assert sorted(asked) == [0, 1, 2, 3]
    (tmp_path / "out" / "part-00002.parquet").unlink()
    again = dd.from_pandas(table, npartitions=4, sort=False)
    assert predict(probe, again, output=tmp_path / "out", device="cpu") == files
    assert sorted(asked) == [0, 1, 2, 2, 3]
    found = pd.concat(map(pd.read_parquet, files))
    assert (found["prediction"].to_numpy() == probe.predict(table)).all()
    other = dd.from_pandas(table.iloc[1:], npartitions=4, sort=False)
    with pytest.raises(ValueError, match=r"differs in \['input'\]"):
        predict(probe, other, output=tmp_path / "out")


def test_a_table_in_memory_is_for_predict(probe, table):
    with pytest.raises(TypeError, match=r"got DataFrame; .*model\.predict"):
        predict(probe, table)
