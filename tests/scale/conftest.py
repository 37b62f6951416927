"""Two workers of Dask, Ray and Spark on this machine, and what is asked of them."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robustmm import LinearProbeClassifier
from robustmm.datasets import make_scenes

# Of the processes that are started here: no reports to anyone, one thread each.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray's workers would be nice, and wait for ever on a busy machine.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Workers find functions of these files by the name that they have in this process: some
# look where it looks itself, others where the environment says.
ROOT = str(Path(__file__).parents[2])
sys.path.append(ROOT)
_PATHS = ROOT, os.environ.get("PYTHONPATH", "")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _PATHS))
os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


@pytest.fixture(scope="session")
def two_workers():
    """A client of two worker processes; a killed one is replaced."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def client(two_workers):
    """The same once both are there: joblib computes at home where it has one alone."""
    two_workers.wait_for_workers(2, timeout=120)
    return two_workers


@pytest.fixture(scope="session")
def spark():
    """A session of two workers."""
    pyspark = pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs a Java, and there is none on the PATH")
    session = (
        pyspark.sql.SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "1g")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", 1000)
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture(scope="session")
def ray():
    """Ray with room for two workers."""
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    register_ray()
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def scenes():
    return make_scenes(24, n_classes=2, random_state=0)


@pytest.fixture(scope="session")
def probe(scenes):
    return LinearProbeClassifier("robustmm/tiny-clip", device="cpu").fit(*scenes)


@pytest.fixture(scope="session")
def table(scenes):
    """Texts of other rows, some of which are missing, with labels and a key."""
    X, _ = make_scenes(200, n_classes=2, random_state=1)
    X = X.assign(image=None, key=np.arange(200))
    X.loc[X.index[::9], "text"] = None
    return X.set_index(pd.Index([f"r{i}" for i in range(200)]))
