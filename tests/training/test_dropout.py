"""Cells that a step takes away: how many, of which rows, and who takes them away."""

import numpy as np
import pytest
import torch
from contract import frame_with_holes, public_classifiers, small
from toys import QuickClassifier

from robustmm import MultimodalClassifier, drop_modalities
from robustmm.datasets import make_scenes
from robustmm.training.dropout import ModalityDropout, automatic_probability
from robustmm.training.shares import Share

TRAINED = [cls for cls in public_classifiers() if issubclass(cls, MultimodalClassifier)]


def batch_of(clf, X):
    """A batch of all rows, as the training makes it, and the collate function."""
    rows, backbone = (
        clf._check_X(X, reset=True),
        clf._load_backbone(torch.device("cpu")),
    )
    data, collate = clf._dataset(backbone, rows), clf._collate(backbone)
    return collate([data[i] for i in range(len(X))])[0], collate


class Seen(QuickClassifier):
    """Keeps what its module is given in training."""

    def _build_module(self, backbone, n_outputs):
        module = super()._build_module(backbone, n_outputs)
        forward, self.seen_ = module.forward, []

        def remember(**batch):
            if module.training:
                self.seen_.append(batch["present"])
            return forward(**batch)

        module.forward = remember
        return module


def trained_on(X, y, **params):
    clf = Seen(batch_size=5).set_params(max_epochs=2)
    vars(clf).update(params)
    return clf.fit(X, y).seen_


@pytest.mark.parametrize("per", ["row", "batch"])
def test_complete_rows_lose_one_in_every_batch(per):
    X, y = make_scenes(60, n_classes=2, random_state=0)
    seen = trained_on(X, y, modality_dropout=1.0, modality_dropout_per=per)
    assert len(seen) == 24
    assert all((present.sum(dim=1) == 1).all() for present in seen)
    alike = [bool((present == present[0]).all()) for present in seen]
    assert all(alike) == (per == "batch")
    # Either modality goes, and another one in another epoch.
    images = torch.stack([present[:, 0] for present in seen]).float()
    assert 0.2 < images.mean() < 0.8


def test_incomplete_rows_are_no_cliff():
    X, y = make_scenes(80, n_classes=2, random_state=0)
    X = drop_modalities(X, rate=0.25, scenario="both", random_state=0)
    for rate in (0.5, "auto"):
        present = torch.cat(trained_on(X, y, modality_dropout=rate))
        assert present.any(dim=1).all()
        expected = 0.375 if rate == 0.5 else 1 / 3
        assert abs(present.all(dim=1).float().mean() - expected) < 0.1


def test_a_prediction_loses_nothing():
    X, y = make_scenes(20, n_classes=2, random_state=0)
    clf = QuickClassifier()
    clf.modality_dropout = 1.0
    clf.fit(X, y)
    assert clf.net_.modality_dropout is None
    np.testing.assert_array_equal(clf.decision_function(X), clf.decision_function(X))


def test_a_fit_draws_from_its_own_stream():
    X, y = make_scenes(20, n_classes=2, random_state=0)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = torch.cat(trained_on(X, y, modality_dropout=0.5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(torch.cat(trained_on(X, y, modality_dropout=0.5)), first)
    other = torch.cat(trained_on(X, y, modality_dropout=0.5, random_state=1))
    assert not torch.equal(other, first)


@pytest.mark.parametrize("cls", TRAINED, ids=lambda cls: cls.__name__)
def test_a_hidden_cell_is_a_missing_one(cls):
    """The module in training makes the same of both."""
    X, _ = make_scenes(9, n_classes=3, random_state=0)
    params = {} if "dropout" not in cls._small().get_params() else {"dropout": 0.0}
    clf = small(cls, **params).fit(*frame_with_holes(12, 3))
    batch, collate = batch_of(clf, X)
    net = clf.net_
    net.module_.train()
    torch.manual_seed(0)
    hidden = ModalityDropout(0.7, "row", collate)(batch, net.module_)
    lost = hidden["present"] & ~hidden.get("hidden", torch.zeros(9, 2).bool())
    assert not lost.all(dim=0).any()
    assert lost.all(dim=1).any()
    X = X.astype(object)
    for column, name in enumerate(("image", "text")):
        X.loc[~lost[:, column].numpy(), name] = None
    expected, _ = batch_of(clf, X)
    with torch.no_grad():
        got, expected = (
            output[0] if isinstance(output, tuple) else output
            for output in map(net.infer, (hidden, expected))
        )
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cls", TRAINED, ids=lambda cls: cls.__name__)
def test_every_method_trains_with_it(cls):
    X, y = make_scenes(12, n_classes=2, random_state=0)
    if cls.__name__ == "ToyClassifier":
        pytest.skip("takes no such parameter")
    plain, dropped = (
        small(cls, modality_dropout=rate).fit(X, y).decision_function(X)
        for rate in (0.0, 1.0)
    )
    assert not np.allclose(plain, dropped, atol=1e-7)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"modality_dropout": 1.5}, ValueError, r"modality_dropout must be in \[0, 1"),
        (
            {"modality_dropout": "some"},
            ValueError,
            r"in \[0, 1\] or .auto., got 'some'",
        ),
        ({"modality_dropout": None}, TypeError, "modality_dropout must be a number"),
        ({"modality_dropout_per": "epoch"}, ValueError, "modality_dropout_per must be"),
    ],
)
def test_bad_parameters_are_named(params, error, message):
    clf = QuickClassifier()
    vars(clf).update(params)
    with pytest.raises(error, match=message):
        clf.fit(*frame_with_holes(6))


def test_the_automatic_probability_has_no_jump():
    present, rates = np.ones((300, 2), dtype=bool), []
    for i in range(300):
        rates.append(automatic_probability(present))
        present[i, i % 2] = False
    assert rates[0] == pytest.approx(2 / 3)
    assert rates[200:] == [0.0] * 100
    falls = -np.diff(rates)
    assert (falls >= 0).all()
    assert falls.max() < 0.01


@pytest.mark.parametrize("n_modalities", [2, 3])
def test_processes_that_share_a_step_hide_what_one_would(n_modalities):
    class ReadsHidden(torch.nn.Module):
        reads_hidden = True

    dropout = ModalityDropout(1.0, "row", collate=None)
    whole, parts = torch.ones(5, n_modalities, dtype=torch.bool), []
    torch.manual_seed(0)
    expected = dropout({"present": whole}, ReadsHidden())["hidden"]
    for rank in range(2):
        share = Share(list(range(5)), rank, size=2)
        torch.manual_seed(0)
        batch = {"present": whole[share.place]}
        parts.append(dropout(batch, ReadsHidden(), share)["hidden"])
    assert torch.equal(torch.cat(parts), expected)
