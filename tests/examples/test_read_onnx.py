"""The reader that applications copy: its probabilities are the model's."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import robustmm
from robustmm.datasets import make_scenes

pytest.importorskip(
    "onnxruntime", reason='needs onnxruntime: pip install "robustmm[export]"'
)
EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = Path(robustmm.__file__).parent / "backbones" / "embedded" / "tiny-clip"
# Pictures of several sizes, both of which a checkpoint may be told to bring to one.
CROPPED = {
    "size": {"shortest_edge": 48},
    "do_center_crop": True,
    "crop_size": {"height": 48, "width": 48},
}


@pytest.fixture(scope="module")
def example():
    place = EXAMPLES / "read_onnx.py"
    spec = importlib.util.spec_from_file_location("read_onnx_example", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*neither image nor text")
@pytest.mark.parametrize("settings", [{}, CROPPED], ids=["fixed", "cropped"])
def test_it_answers_as_the_model_does(settings, example, tmp_path):
    encoder = shutil.copytree(TINY, tmp_path / "clip")
    file = encoder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    X, y = make_scenes(20, n_classes=2, random_state=0)
    X["image"] = [Image.fromarray(np.asarray(cell)) for cell in X["image"]]
    wide = X["image"].iloc[0]
    X.at[X.index[0], "image"] = wide.resize((2 * wide.width, wide.height))
    X = robustmm.drop_modalities(X, 0.5, "both", random_state=0)
    X.iloc[3] = [None, " "]
    clf = robustmm.LinearProbeClassifier(str(encoder)).fit(X, y)
    clf.to_onnx(tmp_path / "model.onnx")
    reader = example.Reader(tmp_path / "model.onnx")
    rows = [(None if im is None else im, t) for im, t in X.to_numpy(dtype=object)]
    rows = [(im, t if isinstance(t, str) else None) for im, t in rows]
    np.testing.assert_allclose(reader(rows), clf.predict_proba(X), atol=1e-4, rtol=0)
    assert reader.classes == clf.classes_.tolist()


@pytest.mark.parametrize("size", [(48, 48), (100, 48), (30, 70), (400, 50)])
def test_vilts_rule_is_that_of_the_package(size, example):
    from robustmm.data import ImageTransform

    reader = object.__new__(example.Reader)
    reader.image = {"size": {"shortest_edge": 48}, "size_divisor": 16}
    transform = ImageTransform(shortest_edge=48, size_divisor=16)
    width, height = size
    assert reader.resized(width, height) == transform.resized((height, width))[::-1]
