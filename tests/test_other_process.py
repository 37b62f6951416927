"""Models that one process fits and another opens, as an application does."""

import subprocess
import sys

import joblib
import numpy as np
from contract import ToyClassifier, frame_with_holes, public_classifiers, small

OPEN = """
import sys, joblib, numpy, torch
torch.set_num_threads(1)
models, X = joblib.load(sys.argv[1])
numpy.savez(sys.argv[2], **{n: m.predict_proba(X) for n, m in models.items()})
"""


def test_every_classifier_opens_in_another_process(tmp_path):
    X, y = frame_with_holes()
    # The toy is no module that another process could import.
    classes = [cls for cls in public_classifiers() if cls is not ToyClassifier]
    models = {cls.__name__: small(cls).fit(X, y) for cls in classes}
    joblib.dump((models, X), tmp_path / "models.joblib")
    paths = [str(tmp_path / "models.joblib"), str(tmp_path / "proba.npz")]
    subprocess.run([sys.executable, "-c", OPEN, *paths], check=True)
    opened = np.load(paths[1])
    assert sorted(opened) == sorted(models)
    for name, model in models.items():
        np.testing.assert_allclose(
            opened[name], model.predict_proba(X), rtol=0, atol=1e-6
        )
