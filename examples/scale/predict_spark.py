"""Predict a table of Spark.

python examples/scale/predict_spark.py [--rows 200]
"""

import argparse
import os
import sys

from pyspark.sql import SparkSession

from robustmm import LinearProbeClassifier
from robustmm.datasets import make_scenes


def start() -> SparkSession:
    """Start Spark on this machine, with two workers."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    return (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", 2000)
        .config("spark.executorEnv.OMP_NUM_THREADS", "1")
        .getOrCreate()
    )


def answer(clf, table):
    """Return the Spark DataFrame of labels beside the key."""
    # [predict]
    from robustmm.distributed import predict

    return predict(clf, table, keep=["key"])
    # [end]


def main() -> None:
    """Fit on this machine, and predict where the table lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200)
    X, y = make_scenes(60, n_classes=2, random_state=0)
    clf = LinearProbeClassifier("robustmm/tiny-clip").fit(X, y)
    texts = X["text"].sample(parser.parse_args().rows, replace=True, random_state=0)
    rows = [(key, None, text or None) for key, text in enumerate(texts)]
    spark = start()
    table = spark.createDataFrame(rows, "key long, image string, text string")
    answer(clf, table).groupBy("prediction").count().show()
    spark.stop()


if __name__ == "__main__":
    main()
