"""Memory and speed of 200,000 rows through Dask, Spark or joblib, next to predict.

A table of texts, of which 2,000 differ, goes through a linear probe with a cache: two
worker processes predict it. Printed are whether the answers are those of ``predict``,
rows per second, and the most memory that a worker had in each quarter of the time.

    python examples/benchmarks/scale_rows.py {dask,spark,files} [--rows 200000]
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch

from robustmm import LinearProbeClassifier
from robustmm.datasets import make_scenes
from robustmm.distributed import predict

OPTIONS = {"cache": "memory", "device": "cpu", "batch_rows": 2000}


@contextmanager
def dask_engine(folder: Path):
    """Yield a function from a model to labels by key."""
    import dask
    import dask.dataframe as dd
    from distributed import Client, LocalCluster

    # Instead of Dask's own, which has memory given back in every step of a fit.
    dask.config.set({"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1}})
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as own,
        Client(own),
    ):
        frame = dd.read_parquet(folder, split_row_groups=False)
        yield lambda clf: predict(clf, frame, keep=["key"], **OPTIONS).compute()


@contextmanager
def spark_engine(folder: Path):
    """Yield a function from a model to labels by key."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "1g")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", 2000)
        .getOrCreate()
    )
    frame = spark.read.parquet(str(folder))
    yield lambda clf: predict(clf, frame, keep=["key"], **OPTIONS).toPandas()
    spark.stop()


@contextmanager
def files_engine(folder: Path):
    """Yield a function from a model to labels by key."""
    with tempfile.TemporaryDirectory() as out:

        def ask(clf):
            options = {**OPTIONS, "keep": ["key"], "n_jobs": 2, "verbose": 1}
            files = predict(clf, folder, output=f"{out}/labels", **options)
            return pd.concat(map(pd.read_parquet, files))

        yield ask


ENGINES = {"dask": dask_engine, "spark": spark_engine, "files": files_engine}


class Watch(threading.Thread):
    """Sees how much memory the Python processes below this one have."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen, self.done = [], threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.5):
            sizes = [0]
            for child in psutil.Process().children(recursive=True):
                try:
                    if "python" in child.name():
                        sizes.append(child.memory_info().rss)
                except psutil.Error:
                    continue  # it has ended
            self.seen.append(max(sizes) / 2**20)

    def quarters(self) -> list[int]:
        """Return the peak of each quarter of the time, in MiB."""
        self.done.set()
        self.join()
        return [int(max(part)) for part in np.array_split(self.seen, 4) if len(part)]


def make_table(folder: Path, n_rows: int) -> tuple:
    """Write 40 files of texts; return a fitted probe, and the table."""
    X, y = make_scenes(2000, n_classes=3, random_state=0)
    table = X[["text"]].sample(n_rows, replace=True, random_state=0)
    table = table.assign(image=None, key=np.arange(n_rows)).reset_index(drop=True)
    table.loc[::10, "text"] = None
    for i in range(40):
        part = table.iloc[i * n_rows // 40 : (i + 1) * n_rows // 40]
        part.astype({"image": "string"}).to_parquet(folder / f"{i:02d}.parquet")
    clf = LinearProbeClassifier("robustmm/tiny-clip", device="cpu")
    return clf.fit(X[:300], y[:300]), table


def main() -> None:
    """Predict the table in both ways, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--rows", type=int, default=200_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        clf, table = make_table(Path(folder), options.rows)
        with ENGINES[options.engine](Path(folder)) as ask:
            watch, start = Watch(), time.perf_counter()
            watch.start()
            found = ask(clf).sort_values("key")
            seconds, quarters = time.perf_counter() - start, watch.quarters()
    equal = np.array_equal(found["prediction"].to_numpy(), clf.predict(table))
    print(f"{options.engine}: {options.rows} rows in {seconds:.0f} s", end=", ")
    print(f"{options.rows / seconds:.0f} rows/s, equal to predict: {equal}")
    print(f"largest worker in each quarter of the time, MiB: {quarters}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
