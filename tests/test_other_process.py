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
