"""Prediction over partitions on real engines: equal, bounded, named, resumable."""

import os
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest

from robustmm.distributed import PartitionError, packing, predict

pytestmark = [
    pytest.mark.scale,
    pytest.mark.filterwarnings("ignore:.*neither image nor text"),
    # That it is not made for pandas 3 yet, and what it does there that is deprecated.
    pytest.mark.filterwarnings("ignore:::pyspark"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture
def frame(table):
    return pytest.importorskip("dask.dataframe").from_pandas(
        table, npartitions=8, sort=False
    )


@pytest.fixture
def folder(table, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(8):
        part = table.iloc[25 * i : 25 * i + 25]
        part.to_parquet(tmp_path / "in" / f"{i}.parquet")
    return tmp_path


def opened():
    """The models that a process has open."""
    return [id(model) for model in packing._OPEN.values()]


def test_dask_gives_what_predict_gives(client, probe, frame, table):
    found = predict(probe, frame, keep=["key"]).compute()
    assert found.index.equals(table.index)
    assert (found["prediction"].to_numpy() == probe.predict(table)).all()
    first = client.run(opened)
    assert sorted(map(len, first.values())) == [1, 1]
    proba = predict(probe, frame, method="predict_proba").compute()
    np.testing.assert_allclose(proba, probe.predict_proba(table), atol=1e-6)
    # One model per process, not per partition and not per call.
    assert client.run(opened) == first


def test_a_bad_partition_is_named_by_a_worker(client, probe, table):
    import dask.dataframe as dd

    cells = pd.Series(["absent.png"], index=["r130"])
    bad = dd.from_pandas(table.assign(image=cells), npartitions=8, sort=False)
    message = "partition 5 cannot.*row 'r130': no such file"
    with pytest.raises(PartitionError, match=message):
        predict(probe, bad).compute()


def kill_one(client, ready):
    """Kill a worker, while it predicts, once there is something to lose."""
    while not ready():
        time.sleep(0.01)
    pid = next(iter(client.run(os.getpid).values()))
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["frame", "files"])
def test_a_killed_worker_changes_nothing(client, probe, folder, frame, table, kind):
    from joblib import parallel_config

    out = folder / "out"

    def begun():
        return out.is_dir() and len(list(out.glob("*.parquet"))) > 0

    killer = threading.Thread(target=kill_one, args=(client, begun))
    killer.start()
    options = {"output": out, "batch_rows": 2}
    if kind == "frame":
        files = predict(probe, frame, **options)
    else:
        with parallel_config("dask", client=client):
            files = predict(probe, folder / "in", **options)
    killer.join()
    found = pd.concat(map(pd.read_parquet, files))
    assert found.index.equals(table.index)
    assert (found["prediction"].to_numpy() == probe.predict(table)).all()
    assert not list(out.glob("_draft*")) + list(out.glob("_model*"))


def test_what_a_killed_program_wrote_is_not_predicted_again(folder, probe, table):
    """The whole process dies, not a worker: the next one goes on."""
    import subprocess
    import sys

    import robustmm

    robustmm.save(probe, folder / "model")
    code = (
        "import sys; from robustmm.distributed import predict; f = sys.argv[1];"
        "predict(f + '/model', f + '/in', output=f + '/out', batch_rows=1)"
    )
    program = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, folder])
    out = folder / "out"
    while not out.is_dir() or len(list(out.glob("*.parquet"))) < 3:
        assert program.poll() is None
        time.sleep(0.01)
    program.kill()
    program.wait()
    done = {file: file.stat().st_mtime_ns for file in out.glob("[0-9]*.parquet")}
    assert 3 <= len(done) < 8
    files = predict(folder / "model", folder / "in", output=out)
    assert {file: file.stat().st_mtime_ns for file in done} == done
    found = pd.concat(map(pd.read_parquet, files))
    assert (found["prediction"].to_numpy() == probe.predict(table)).all()
    assert not list(out.glob("_draft*"))


def test_processes_of_joblib_and_ray_predict_files(ray, folder, probe, table):
    from joblib import parallel_config

    expected = probe.predict(table)
    for name in ("loky", "ray"):
        with parallel_config(name, n_jobs=2):
            files = predict(probe, folder / "in", output=folder / name)
        found = pd.concat(map(pd.read_parquet, files))["prediction"]
        assert (found.to_numpy() == expected).all()


@pytest.fixture
def spark_table(spark, table):
    texts = [None if pd.isna(text) else text for text in table["text"]]
    rows = [(key, None, text) for key, text in enumerate(texts)]
    return spark.createDataFrame(rows, "key int, image string, text string")


def test_spark_gives_what_predict_gives(spark_table, probe, table):
    answers = predict(probe, spark_table.repartition(4), keep=["key"])
    assert answers.dtypes == [("key", "int"), ("prediction", "string")]
    found = answers.toPandas().set_index("key")["prediction"]
    expected = pd.Series(probe.predict(table), index=table["key"])
    assert found.sort_index().tolist() == expected.tolist()
    proba = predict(probe, spark_table, keep=["key"], method="predict_proba")
    proba = proba.toPandas().set_index("key").sort_index()
    np.testing.assert_allclose(proba, probe.predict_proba(table), atol=1e-6)
    assert predict(probe, spark_table.where("key < 0")).toPandas().empty


def test_a_bad_partition_is_named_by_spark(spark, probe):
    rows = [("", "a car")] * 3 + [("absent.png", "a car")]
    bad = spark.createDataFrame(rows, "image string, text string").coalesce(1)
    bad = bad.selectExpr("nullif(image, '') image", "text")
    with pytest.raises(Exception, match=r"partition 0 cannot.*row 3: no such file"):
        predict(probe, bad).collect()


def test_an_output_is_sparks_own_business(spark_table, probe, tmp_path):
    with pytest.raises(ValueError, match=r"write\.parquet"):
        predict(probe, spark_table, output=tmp_path)


def peak(pid):
    """The most memory that a process has had since this was last asked, in MiB."""
    with open(f"/proc/{pid}/status") as stream:
        lines = dict(line.split(":", 1) for line in stream if ":" in line)
    with open(f"/proc/{pid}/clear_refs", "w") as stream:
        stream.write("5")
    return int(lines["VmHWM"].split()[0]) / 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
def test_memory_does_not_grow_with_the_table(client, probe, folder, table):
    """A file that is twenty times another costs its workers no more."""
    from joblib import parallel_config

    def workers():
        return max(peak(pid) for pid in client.run(os.getpid).values())

    peaks = []
    # First once for what workers load and open, whoever of them gets a file.
    for n, copies in enumerate((1, 1, 20)):
        (folder / f"big{n}").mkdir()
        many = pd.concat([table] * copies, ignore_index=True)
        for part in range(2):
            many.to_parquet(folder / f"big{n}" / f"{part}.parquet")
        with parallel_config("dask", client=client):
            predict(probe, folder / f"big{n}", output=folder / f"o{n}", batch_rows=100)
        peaks.append(workers())
    assert peaks[2] - peaks[1] < 60
