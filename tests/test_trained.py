"""What training by gradient descent adds to the base class."""

import inspect

import numpy as np
import pytest
from contract import ToyModule, frame_with_holes, public_classifiers, small
from skorch import NeuralNet
from toys import QuickClassifier

import robustmm
from robustmm import (
    BaseMultimodalClassifier,
    GaussianPrototypeClassifier,
    LinearProbeClassifier,
    MultimodalClassifier,
    RanPACClassifier,
)

TRAINED = [cls for cls in public_classifiers() if issubclass(cls, MultimodalClassifier)]
# What makes no sense without steps and epochs.
OF_TRAINING = {
    "max_epochs",
    "lr",
    "weight_decay",
    "lr_schedule",
    "warmup",
    "head_init",
    "head_lr",
    "modality_dropout",
    "modality_dropout_per",
    "scoring",
    "time_limit",
    "early_stopping",
    "validation_fraction",
    "n_iter_no_change",
    "checkpoint_dir",
    "compile",
    "micro_batch_size",
    "net_params",
}


@pytest.fixture(scope="module")
def data():
    return frame_with_holes(20)


def test_the_base_has_no_parameter_of_training():
    known = set(inspect.signature(BaseMultimodalClassifier).parameters)
    assert not known & OF_TRAINING
    assert set(inspect.signature(MultimodalClassifier).parameters) == (
        known | OF_TRAINING
    )


def test_a_probe_is_not_trained_and_says_so(data):
    assert not issubclass(LinearProbeClassifier, MultimodalClassifier)
    assert not set(LinearProbeClassifier().get_params()) & OF_TRAINING
    clf = small(LinearProbeClassifier).fit(*data)
    assert "lr" not in clf.history_
    assert clf.n_iter_ == 1


def test_all_others_are_trained_by_skorch(data):
    others = set(public_classifiers()) - set(TRAINED)
    solved = {GaussianPrototypeClassifier, LinearProbeClassifier, RanPACClassifier}
    assert others == solved
    for name in ("MAIL", "MoRA", "DeLo", "CMPT", "MemPrompt"):
        assert getattr(robustmm, f"{name}Classifier") in TRAINED
    clf = QuickClassifier(max_epochs=2).fit(*data)
    assert isinstance(clf.net_, NeuralNet)
    assert len(clf.history_) == clf.n_iter_ == 2


def test_both_bases_are_abstract():
    for cls in (BaseMultimodalClassifier, MultimodalClassifier):
        with pytest.raises(TypeError, match="abstract"):
            cls()


def test_early_stopping_holds_the_fraction_out(data):
    fractions = {}
    for early in (False, True):
        clf = QuickClassifier(early_stopping=early).set_params(net_params={})
        clf.validation_fraction = 0.25
        rows, held_out = clf._split(np.arange(20), clf._encode(data[1]), seed=0)
        fractions[early] = (len(rows), len(held_out))
        assert sorted([*rows, *held_out]) == list(range(20))
    assert fractions == {False: (20, 0), True: (15, 5)}


def test_a_fit_lets_go_of_what_only_a_training_needs(data):
    net = QuickClassifier(early_stopping=True).fit(*data).net_
    assert net.draws is None
    assert net.train_split is None
    assert not net.optimizer_.state


def test_a_checkpoint_without_a_seed_is_refused(data, tmp_path):
    clf = small(robustmm.MSPClassifier, checkpoint_dir=tmp_path, random_state=None)
    with pytest.raises(ValueError, match="random_state must be set with"):
        clf.fit(*data)


class ByHand(MultimodalClassifier):
    """A user's class of before: its constructor names what it takes."""

    def __init__(self, backbone="robustmm/tiny-clip", max_epochs=1, random_state=None):
        super().__init__(max_epochs=max_epochs, random_state=random_state)
        self.backbone = backbone

    def _build_module(self, backbone, n_outputs):
        return ToyModule(backbone, n_outputs)


def test_a_class_with_a_constructor_of_its_own_works_as_before(data):
    clf = ByHand(random_state=0).fit(*data)
    assert set(clf.get_params()) == {"backbone", "max_epochs", "random_state"}
    assert clf.lr == 1e-3
    assert clf.predict_proba(data[0]).shape == (20, 2)
