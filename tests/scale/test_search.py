"""Searches on the workers of Dask and Ray: the scores of one process, whoever dies."""

import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from sklearn.model_selection import GridSearchCV, cross_validate

from robustmm import (
    AutoMultimodalClassifier,
    LinearProbeClassifier,
    MoRAClassifier,
    OutOfFoldFeatures,
    compare_methods,
)
from robustmm.backbones import loading

pytestmark = pytest.mark.scale

TINY = "robustmm/tiny-clip"
MORA = MoRAClassifier(TINY, max_epochs=1, random_state=0, device="cpu")
GRID = {"rank": [1, 2]}
AGAIN = {"max_restarts": -1, "max_task_retries": -1}


def search(X, y, estimator=MORA):
    """Return the scores of each split and candidate."""
    options = {"cv": 2, "refit": False, "error_score": "raise"}
    results = GridSearchCV(estimator, GRID, **options).fit(X, y).cv_results_
    return np.array([results[f"split{i}_test_score"] for i in range(2)])


def kill_when(ready, pids, killed):
    """Kill the first of some processes once they are at work."""
    while not ready():
        time.sleep(0.05)
    pid = next(pid for pid in pids() if pid != os.getpid())
    os.kill(pid, signal.SIGKILL)
    killed.append(pid)


class Slow(MoRAClassifier):
    """Leaves a file when a fit begins, and takes its time."""

    folder: str = ""

    def fit(self, X, y, sample_weight=None):
        with open(os.path.join(self.folder, f"{os.getpid()}-{time.time_ns()}"), "w"):
            time.sleep(0.5)
        return super().fit(X, y, sample_weight)


def slow(folder):
    return Slow(TINY, max_epochs=1, random_state=0, device="cpu", folder=str(folder))


def test_a_search_gives_the_scores_of_one_process(client, scenes):
    X, y = scenes
    alone = search(X, y)
    with parallel_config("dask", client=client, scatter=[X, y]):
        np.testing.assert_array_equal(search(X, y), alone)


def about_worker():
    """What a worker has open, and how it computes."""
    return [id(s) for s in loading._SHARED.values()], torch.get_num_threads()


def test_a_worker_loads_a_backbone_once_and_has_one_thread(client, scenes):
    X, y = scenes
    with parallel_config("dask", client=client, scatter=[X, y]):
        search(X, y)
        first = client.run(about_worker)
        search(X, y)
    assert client.run(about_worker) == first
    assert [len(shared) for shared, _ in first.values()] == [1, 1]
    assert [threads for _, threads in first.values()] == [1, 1]


def test_the_state_cache_of_a_shared_folder_is_filled_by_all(client, scenes, tmp_path):
    X, y = scenes
    estimator = MoRAClassifier(**MORA.get_params() | {"cache": str(tmp_path)})
    with parallel_config("dask", client=client, scatter=[X, y]):
        first = search(X, y, estimator)
        n_files = len(list(tmp_path.glob("*/*.npy")))
        assert n_files >= len(X)
        np.testing.assert_array_equal(search(X, y, estimator), first)
    assert len(list(tmp_path.glob("*/*.npy"))) == n_files
    np.testing.assert_array_equal(search(X, y), first)


def test_loaders_start_no_processes_in_workers(client, scenes):
    X, y = scenes
    net_params = {"iterator_train__num_workers": 2}
    estimator = MoRAClassifier(**MORA.get_params() | {"net_params": net_params})
    with parallel_config("dask", client=client, scatter=[X, y]):
        np.testing.assert_array_equal(search(X, y, estimator), search(X, y))


def test_other_evaluations_give_what_one_process_gives(client, scenes):
    X, y = scenes
    probes = {"weak": LinearProbeClassifier(TINY, C=0.1, device="cpu"), "mora": MORA}

    def evaluate():
        table = compare_methods(probes, X, y, rate=0.5, seeds=[0])
        columns = OutOfFoldFeatures(probes["weak"], cv=2, random_state=0)
        scores = cross_validate(MORA, X, y, cv=2)["test_score"]
        return table["score_mean"].tolist(), scores, columns.fit_transform(X, y)

    alone = evaluate()
    with parallel_config("dask", client=client):
        found = evaluate()
    assert found[0] == alone[0]
    np.testing.assert_array_equal(found[1], alone[1])
    np.testing.assert_allclose(found[2], alone[2], atol=1e-6)


def test_an_automatic_classifier_is_the_same_here_and_on_a_worker(client, scenes):
    X, y = scenes
    few = [("probe", LinearProbeClassifier(TINY)), ("mora", MORA)]
    automatic = AutoMultimodalClassifier(
        candidates=few, cv=2, random_state=0, device="cpu"
    )
    alone = automatic.fit(X, y).predict_proba(X)
    with parallel_config("dask", client=client):
        here = automatic.fit(X, y).predict_proba(X)
        (there,) = Parallel(n_jobs=2)(
            delayed(fit_predict)(automatic, X, y) for _ in "a"
        )
    np.testing.assert_allclose(here, alone, atol=1e-6)
    np.testing.assert_allclose(there, alone, atol=1e-6)


def fit_predict(estimator, X, y):
    return estimator.fit(X, y).predict_proba(X)


@pytest.mark.parametrize("scattered", [True, False])
def test_the_candidate_of_a_killed_worker_is_run_again(
    client, scenes, tmp_path, scattered
):
    X, y = scenes
    alone, killed = search(X, y), []

    def working():
        return [int(name.split("-")[0]) for name in os.listdir(tmp_path)]

    killer = threading.Thread(
        target=kill_when, args=(lambda: len(working()) > 1, working, killed)
    )
    killer.start()
    options = {"scatter": [X, y]} if scattered else {}
    with parallel_config("dask", client=client, **options):
        found = search(X, y, slow(tmp_path))
    killer.join()
    np.testing.assert_array_equal(found, alone)
    assert killed[0] in working()
    assert len(set(working())) > 1


def test_ray_gives_the_scores_of_one_process(ray, scenes):
    X, y = scenes
    probes = {"weak": LinearProbeClassifier(TINY, C=0.1, device="cpu"), "mora": MORA}
    alone = (
        search(X, y),
        compare_methods(probes, X, y, rate=0.5, seeds=[0])["score_mean"].tolist(),
    )
    with parallel_config("ray", n_jobs=2):
        np.testing.assert_array_equal(search(X, y), alone[0])
        table = compare_methods(probes, X, y, rate=0.5, seeds=[0])
    assert table["score_mean"].tolist() == alone[1]


def test_the_candidate_of_a_killed_worker_of_ray_is_run_again(ray, scenes, tmp_path):
    X, y = scenes
    alone, killed = search(X, y), []

    def working():
        return [int(name.split("-")[0]) for name in os.listdir(tmp_path)]

    def alive():
        return [pid for pid in reversed(working()) if psutil.pid_exists(pid)]

    killer = threading.Thread(
        target=kill_when, args=(lambda: len(working()) > 1, alive, killed)
    )
    killer.start()
    with parallel_config("ray", n_jobs=2, ray_remote_args=AGAIN):
        found = search(X, y, slow(tmp_path))
    killer.join()
    np.testing.assert_array_equal(found, alone)
    assert len(killed) == 1
