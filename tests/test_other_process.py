"""Models that one process fits and another opens, as an application does."""

import os
import shutil
import subprocess
import sys

import joblib
import numpy as np
import pytest
from contract import ToyClassifier, frame_with_holes, public_classifiers, small

import robustmm
from robustmm.backbones import checkpoint

OPEN = """
import os, sys, joblib, numpy, torch
torch.set_num_threads(1)
assert not torch.cuda.is_available()
models, X = joblib.load(sys.argv[1])
import robustmm
for name in os.listdir(sys.argv[2]):
    models["saved " + name] = clf = robustmm.load(os.path.join(sys.argv[2], name))
    inside = [v for k, v in clf.get_params().items() if k.endswith("backbone") and v]
    assert all(v.startswith(sys.argv[2]) for v in inside), inside
numpy.savez(sys.argv[3], **{n: m.predict_proba(X) for n, m in models.items()})
assert not os.path.exists(os.path.join(os.environ["HF_HOME"], "hub"))
"""
X, Y = frame_with_holes()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Every classifier, one of them fitted on a folder that is gone afterwards."""
    # The toy is no module that another process could import.
    classes = [cls for cls in public_classifiers() if cls is not ToyClassifier]
    fitted = {cls.__name__: small(cls).fit(X, Y) for cls in classes}
    original = tmp_path_factory.mktemp("original") / "vilt"
    shutil.copytree(checkpoint._EMBEDDED / "tiny-vilt", original)
    of_folder = small(robustmm.MAPClassifier, backbone=str(original)).fit(X, Y)
    return fitted, of_folder, original


@pytest.mark.slow
def test_every_classifier_opens_offline_in_another_process(models, tmp_path):
    fitted, of_folder, original = models
    joblib.dump((fitted, X), tmp_path / "models.joblib")
    for name, model in [*fitted.items(), ("folder", of_folder)]:
        robustmm.save(model, tmp_path / "saved" / name, include_backbone=True)
    shutil.rmtree(original)
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    (tmp_path / "empty").mkdir()
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "empty"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    paths = [str(tmp_path / n) for n in ("models.joblib", "moved", "proba.npz")]
    command = [sys.executable, "-c", OPEN, *paths]
    subprocess.run(command, check=True, env=os.environ | offline)
    opened = np.load(paths[2])
    expected = {
        **fitted,
        **{f"saved {name}": model for name, model in fitted.items()},
        "saved folder": of_folder,
    }
    assert sorted(opened) == sorted(expected)
    for name, model in expected.items():
        np.testing.assert_allclose(
            opened[name], model.predict_proba(X), rtol=0, atol=1e-6
        )


# What a server does that loads a model and then forks the processes that answer.
SERVE = """
import os, signal, sys, time, warnings
import joblib, numpy, torch
warnings.simplefilter("ignore", DeprecationWarning)  # of forks, from threads
import robustmm

def in_child(function):
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    for _ in range(600):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, status
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise SystemExit(f"{function.__name__} hangs")

def predicts(n_threads=1):
    numpy.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-5)
    assert torch.get_num_threads() == n_threads

def loads_and_fits():
    again = robustmm.load(sys.argv[1], device="cpu")
    numpy.testing.assert_allclose(again.predict_proba(X), expected, atol=1e-5)
    again.fit(X, y)

def predicts_with_two_threads():
    torch.set_num_threads(2)
    predicts(2)

X, y, expected = joblib.load(sys.argv[2])
n_threads = int(sys.argv[3])
torch.set_num_threads(n_threads)
clf = robustmm.load(sys.argv[1], device="cpu")
if n_threads == 2:
    in_child(predicts)
clf.predict_proba(X)
in_child(predicts_with_two_threads if n_threads == 1 else loads_and_fits)
assert torch.get_num_threads() == n_threads
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("n_threads", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_processes_that_are_forked_with_a_model_answer(n_threads, tmp_path):
    clf = small(robustmm.MAPClassifier).fit(X, Y)
    robustmm.save(clf, tmp_path / "model")
    joblib.dump((X, Y, clf.predict_proba(X)), tmp_path / "data")
    paths = [str(tmp_path / name) for name in ("model", "data")]
    command = [sys.executable, "-c", SERVE, *paths, str(n_threads)]
    subprocess.run(command, check=True, timeout=120)
