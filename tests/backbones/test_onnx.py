"""Every method's prediction, exported: onnxruntime gives what predict_proba gives."""

import json
import sys

import numpy as np
import pytest
import torch
from contract import (
    ToyClassifier,
    ToyModule,
    frame_with_holes,
    public_classifiers,
    small,
)
from sklearn.exceptions import NotFittedError
from transformers import CLIPConfig, CLIPModel, ViltConfig, ViltModel

from robustmm import (
    AutoMultimodalClassifier,
    DeLoClassifier,
    EnsembleSelection,
    LinearProbeClassifier,
    MAPClassifier,
    RAGPTClassifier,
    load_backbone,
)
from robustmm.backbones import clear_backbone_cache
from robustmm.backbones.onnx import METADATA

onnxruntime = pytest.importorskip(
    "onnxruntime", reason='needs onnxruntime: pip install "robustmm[export]"'
)
pytest.importorskip("onnxscript", reason='needs onnx: pip install "robustmm[export]"')

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 24}
IMAGE = SIZES | {"image_size": 48, "patch_size": 16}
X, Y = frame_with_holes(14, n_classes=3)
IMAGES, TEXTS = X["image"].notna(), X["text"].notna()
# Its retriever prepares the cells once more, in its own way.
NOT_TRACED = ("RAGPTClassifier",)
CLASSES = [
    pytest.param(cls, marks=pytest.mark.slow)  # ten seconds each
    for cls in public_classifiers()
    if cls.__name__ not in NOT_TRACED
]


def write(name, model, folder, **settings):
    """Save a random model of two layers with what an embedded one is given."""
    tiny = load_backbone(name)
    model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    settings = tiny.image_config | settings
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Encoders of two layers, as each of which is a part of the graph."""
    torch.manual_seed(0)
    vilt, clip = (load_backbone(f"robustmm/tiny-{kind}") for kind in ("vilt", "clip"))
    sizes = IMAGE | {"vocab_size": len(vilt.tokenizer), "max_image_length": -1}
    text = SIZES | {"vocab_size": len(clip.tokenizer)}
    text |= {"eos_token_id": clip["text"].end_token}
    both = CLIPConfig(text_config=text, vision_config=IMAGE, projection_dim=8)
    joint, pair = ViltModel(ViltConfig(**sizes)), CLIPModel(both)
    path = tmp_path_factory.mktemp("encoders")
    ragged = {"size": {"shortest_edge": 48}, "size_divisor": 16}
    yield {
        "joint": write("robustmm/tiny-vilt", joint, path / "vilt"),
        "ragged": write("robustmm/tiny-vilt", joint, path / "ragged", **ragged),
        "pair": write("robustmm/tiny-clip", pair, path / "clip"),
    }
    clear_backbone_cache()


def fitted(cls, encoders, y=Y, table=X, **params):
    """Fit on an encoder of two layers, for one epoch."""
    joint = cls._small().get_params().get("backbone", "").endswith("vilt")
    encoder = encoders["joint" if joint else "pair"]
    names = ("backbone", "image_backbone", "text_backbone")
    taken = cls._small().get_params()
    params = {n: encoder for n in names if taken.get(n)} | params
    return small(cls, **params).fit(table, y)


def exported(clf, path):
    clf.to_onnx(path / "model.onnx")
    return onnxruntime.InferenceSession(path / "model.onnx")


def inputs(clf, table, session, junk=True):
    """Return a batch, with anything in the missing cells."""
    backbone = clf.net_.module_.backbone
    data = clf._dataset(backbone, clf._check_X(table, reset=False))
    batch, _ = clf._collate(backbone)([data[i] for i in range(len(data))])
    if "pictures" in batch:
        batch |= batch["pictures"].pixels()
    if "pixel_mask" not in batch and "pixel_values" in batch:
        batch["pixel_mask"] = torch.ones(batch["pixel_values"][:, 0].shape).long()
    image, text = batch["present"].unbind(dim=1)
    if junk:
        for name in ("pixel_values", "pixel_mask"):
            batch[name][~image] = 7
        for name in ("input_ids", "attention_mask"):
            batch[name][~text] = 1
    return {i.name: batch[i.name].numpy() for i in session.get_inputs()}


def assert_same(clf, session, table):
    (found,) = session.run(None, inputs(clf, table, session))
    np.testing.assert_allclose(found, clf.predict_proba(table), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*neither image nor text")
@pytest.mark.parametrize("cls", CLASSES)
def test_onnxruntime_predicts_the_same(cls, encoders, tmp_path):
    clf = fitted(cls, encoders)
    session = exported(clf, tmp_path)
    for rows in (slice(0, 1), slice(0, 14), IMAGES & TEXTS, IMAGES & ~TEXTS, ~IMAGES):
        assert_same(clf, session, X[rows])
    nothing = X[:2].assign(image=None, text=None)
    assert_same(clf, session, nothing)


@pytest.mark.slow
def test_images_of_several_sizes(encoders, tmp_path):
    table = X.copy()
    for row in table.index[IMAGES][::2]:
        table.at[row, "image"] = np.repeat(np.asarray(X.at[row, "image"]), 2, axis=0)
    clf = fitted(MAPClassifier, encoders, table=table, backbone=encoders["ragged"])
    session = exported(clf, tmp_path)
    assert_same(clf, session, table)
    assert_same(clf, session, table[:1])


@pytest.mark.slow
def test_several_labels(encoders, tmp_path):
    labels = np.eye(3, dtype=int)[np.unique(Y, return_inverse=True)[1]]
    clf = fitted(LinearProbeClassifier, encoders, labels)
    session = exported(clf, tmp_path)
    assert_same(clf, session, X)
    about = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    assert about["multilabel"]


@pytest.mark.slow
def test_the_file_says_how_rows_are_prepared(encoders, tmp_path):
    tiny = LinearProbeClassifier("robustmm/tiny-bert").fit(X, Y)
    session = exported(tiny, tmp_path)
    shapes = {i.name: (i.shape, i.type) for i in session.get_inputs()}
    assert shapes == {
        "input_ids": (["batch", "tokens"], "tensor(int64)"),
        "attention_mask": (["batch", "tokens"], "tensor(int64)"),
        "present": (["batch", 2], "tensor(bool)"),
    }
    (output,) = session.get_outputs()
    assert (output.name, output.shape) == ("probabilities", ["batch", 3])
    about = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    assert about["classes"] == tiny.classes_.tolist()
    assert about["classifier"] == "LinearProbeClassifier"
    assert "image" not in about
    assert json.loads(about["tokenizer"])["truncation"]


@pytest.mark.slow
def test_the_model_stays_as_it_is(encoders, tmp_path):
    clf = fitted(LinearProbeClassifier, encoders, cache="memory")
    before, net = clf.predict_proba(X), clf.net_
    exported(clf, tmp_path)
    assert clf.net_ is net
    assert (clf.predict_proba(X) == before).all()
    assert clf.cache == "memory"


@pytest.mark.slow
def test_each_row_by_its_own_task(tmp_path):
    table, y = frame_with_holes(18, n_classes=4)
    clf, early = small(DeLoClassifier), np.isin(y, np.unique(y)[:2])
    for rows in (early, ~early):
        clf.partial_fit(table[rows], np.asarray(y)[rows])
    assert set(clf.predict_task(table)) == {0, 1}
    session = exported(clf, tmp_path)
    assert_same(clf, session, table)
    assert_same(clf, session, table[:1])


class DecidingModule(ToyModule):
    def forward(self, **batch):
        logits = super().forward(**batch)
        return -logits if logits.sum() > 0 else logits


class DecidingClassifier(ToyClassifier):
    def _build_module(self, backbone, n_outputs):
        return DecidingModule(backbone, n_outputs)


def test_a_second_model_is_not_exported(tmp_path):
    clf = small(RAGPTClassifier).fit(X, Y)
    with pytest.raises(NotImplementedError, match="a second model"):
        clf.to_onnx(tmp_path / "model.onnx")


def test_what_cannot_be_traced_says_so(encoders, tmp_path):
    clf = fitted(DecidingClassifier, encoders)
    with pytest.raises(NotImplementedError, match="DecidingModule cannot be exported"):
        clf.to_onnx(tmp_path / "model.onnx")


def test_without_onnx_the_error_says_what_to_install(monkeypatch, tmp_path, encoders):
    clf = fitted(LinearProbeClassifier, encoders)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r'pip install "robustmm\[export\]"'):
        clf.to_onnx(tmp_path / "model.onnx")


def test_what_is_not_fitted_or_no_network_says_so(tmp_path):
    with pytest.raises(NotFittedError):
        LinearProbeClassifier().to_onnx(tmp_path / "model.onnx")
    for cls in (AutoMultimodalClassifier, EnsembleSelection):
        with pytest.raises(NotImplementedError, match="averages"):
            cls.to_onnx(None, tmp_path / "model.onnx")
