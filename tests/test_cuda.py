"""What only a CUDA device can show: numbers, waits, generators, pinned memory."""

import contextlib
import warnings

import numpy as np
import pytest
import torch
from contract import ToyClassifier, frame_with_holes, public_classifiers, small
from skorch.callbacks import Callback
from test_pretended import KEEPS, KEEPS_IN_TRAINING, LOOKS

import robustmm
from robustmm.data.dataset import bad_images_of
from robustmm.training.device import autocast_type

pytestmark = pytest.mark.cuda

X, Y = frame_with_holes(16)
EVERY = pytest.mark.parametrize(
    "cls", public_classifiers(), ids=lambda cls: cls.__name__
)


def fitted(cls, **params):
    """A small instance without dropout, which draws other numbers on every device."""
    known = cls().get_params()
    params = {"dropout": 0.0, "max_epochs": 2, "precision": "float32"} | params
    params = {name: value for name, value in params.items() if name in known}
    return small(cls, **params).fit(X, Y)


@EVERY
def test_a_fit_is_that_of_the_cpu(cls, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    known, there = fitted(cls), fitted(cls, device="cuda")
    assert there.n_trainable_parameters_ == known.n_trainable_parameters_
    # The toy takes what the card is fast in.
    away = 1e-2 if "precision" in cls().get_params() else 5e-2
    proba = there.predict_proba(X)
    np.testing.assert_allclose(proba, known.predict_proba(X), atol=away)
    robustmm.save(there, tmp_path / "model")
    opened = robustmm.load(tmp_path / "model", "cpu", classes=[ToyClassifier])
    np.testing.assert_allclose(opened.predict_proba(X), proba, atol=away)


@contextlib.contextmanager
def noticed():
    """Collect what torch says of operators that make the host wait."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield caught
        finally:
            torch.cuda.set_sync_debug_mode("default")


def count_waits(caught):
    return sum("synchronizing CUDA operation" in str(w.message) for w in caught)


class Steps(Callback):
    """Counts the waits of each batch, from its begin until its loss is written down."""

    def __init__(self, caught):
        self.caught, self.epochs = caught, []

    def on_epoch_begin(self, net, **kwargs):
        self.epochs.append([])

    def on_batch_begin(self, net, **kwargs):
        self.before = count_waits(self.caught)

    def on_batch_end(self, net, **kwargs):
        self.epochs[-1].append(count_waits(self.caught) - self.before)


@EVERY
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_host_waits_where_the_pretended_device_says(cls, precision):
    always = 1 + LOOKS.get(cls.__name__, 0)
    kept = KEEPS.get(cls.__name__, 0)
    first = always + KEEPS_IN_TRAINING.get(cls.__name__, kept)
    options = {"device": "cuda", "precision": precision}
    with noticed() as caught:
        steps = Steps(caught)
        clf = fitted(cls, net_params={"callbacks": [steps]}, **options)
    for epoch, most in zip(steps.epochs, (first, always), strict=False):
        assert max(epoch) <= most
    clf.predict_proba(X)
    with noticed() as caught:
        clf.predict_proba(X)  # one batch, whose cells are known by now
    assert count_waits(caught) <= always


@EVERY
def test_a_fit_leaves_the_generators_of_all_cards_alone(cls):
    cards = range(torch.cuda.device_count())
    before = [torch.cuda.get_rng_state(card) for card in cards]
    for device in {"cuda:0", f"cuda:{cards[-1]}"}:
        small(cls, device=device).fit(X, Y).predict(X)
    after = [torch.cuda.get_rng_state(card) for card in cards]
    assert all(map(torch.equal, before, after))


def test_batches_are_pinned_and_say_which_images_are_bad():
    clf = small(ToyClassifier, device="cuda", on_bad_image="missing").fit(X, Y)
    spoilt = X.copy()
    spoilt.iloc[0] = [b"no image", "a text"]
    rows, backbone = clf._check_X(spoilt, reset=False), clf.net_.module_.backbone
    data = clf._dataset(backbone, rows, on_bad_image="record")
    ((batch, _),) = clf.net_.get_iterator(data, training=False)
    tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
    tensors.append(batch["pictures"]._pack())
    assert all(tensor.is_pinned() for tensor in tensors)
    assert list(bad_images_of(batch)) == [0]
    with pytest.warns(UserWarning, match="taken as missing"):
        found = clf.predict_proba(spoilt)
    spoilt.iloc[0] = [None, "a text"]
    np.testing.assert_allclose(found, clf.predict_proba(spoilt), atol=1e-5)


def test_bfloat16_is_automatic_where_the_card_has_it():
    for card in range(torch.cuda.device_count()):
        has_it = torch.cuda.get_device_capability(card) >= (8, 0)
        expected = torch.bfloat16 if has_it else None
        assert autocast_type("auto", torch.device("cuda", card)) == expected
