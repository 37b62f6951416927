"""A grid search on the workers of Ray.

python examples/scale/search_ray.py [--rows 60]
"""

import argparse

import ray
from joblib import parallel_config
from ray.util.joblib import register_ray
from sklearn.model_selection import GridSearchCV

from robustmm import MoRAClassifier
from robustmm.datasets import make_scenes


def search(X, y) -> GridSearchCV:
    """Search on the cluster that ``ray.init`` has found."""
    # [search]
    register_ray()
    clf = MoRAClassifier("robustmm/tiny-clip", max_epochs=2, random_state=0)
    search = GridSearchCV(clf, {"rank": [2, 4], "lr": [1e-3, 3e-3]}, cv=3)
    again = {"max_restarts": -1, "max_task_retries": -1}
    with parallel_config("ray", n_jobs=2, ray_remote_args=again):
        search.fit(X, y)
    # [end]
    return search


def main() -> None:
    """Start Ray on this machine; ``ray.init(address="auto")`` finds a cluster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60)
    X, y = make_scenes(parser.parse_args().rows, n_classes=2, random_state=0)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    print(search(X, y).best_params_)
    ray.shutdown()


if __name__ == "__main__":
    main()
