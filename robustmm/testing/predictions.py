"""Checks of what comes out."""

import copy
import pickle

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score

from .subject import (
    Subject,
    applies_if,
    has_net,
    must_raise,
    needs,
    require,
    require_equal,
)

ANSWERS = ("predict", "predict_proba", "decision_function")


def _methods(subject: Subject) -> tuple[str, ...]:
    return (*ANSWERS, "transform") if has_net(subject) else ANSWERS


def check_unfitted_says_so(subject: Subject) -> None:
    """Nothing is predicted before ``fit``."""
    X, _ = subject.table(6)
    for method in _methods(subject):
        rule = f"{method} must raise NotFittedError before fit"
        with must_raise(NotFittedError, "not fitted", rule):
            getattr(subject.fresh(), method)(X)


def check_predictions_agree(subject: Subject) -> None:
    """Labels, probabilities and scores say the same, in the order of ``classes_``."""
    fitted, (X, y) = subject.fitted, subject.table()
    proba = fitted.predict_proba(X)
    rule = "predict_proba must be (n, n_classes) and its rows must sum to one"
    require(proba.shape == (len(X), 2), f"{rule}, got shape {proba.shape}.")
    require_equal(proba.sum(axis=1), np.ones(len(X)), rule, atol=1e-9)
    labels = fitted.classes_[proba.argmax(axis=1)]
    rule = "predict must return the class of highest probability"
    require_equal(fitted.predict(X), labels, rule)
    scores = fitted.decision_function(X)
    rule = "decision_function must be (n,) for two classes"
    require(scores.shape == (len(X),), f"{rule}, got {scores.shape}.")
    order = np.argsort(scores)
    rising = (np.diff(proba[order, 1]) >= -1e-9).all()
    require(rising, "decision_function must rise with the second class's probability.")
    score = fitted.score(X, y)
    expected = accuracy_score(y, labels)
    require(score == expected, f"score must be the accuracy {expected}, got {score}.")


def check_rows_are_predicted_one_by_one(subject: Subject) -> None:
    """A prediction depends on its row, not on the others or their order."""
    X, _ = subject.table()
    together = subject.fitted.decision_function(X)
    order = np.random.default_rng(0).permutation(len(X))
    rule = "The order of rows must not change their predictions"
    shuffled = subject.fitted.decision_function(X.iloc[order])
    require_equal(shuffled, together[order], rule, atol=1e-5)
    for i in range(3):  # one of each missing pattern
        alone = subject.fitted.decision_function(X.iloc[[i]])
        rule = f"Row {i} alone must be predicted like row {i} among others"
        require_equal(alone, together[[i]], rule, atol=1e-5)


def check_predicting_is_repeatable(subject: Subject) -> None:
    """Predicting twice gives the same, and adds nothing to the estimator."""
    X, _ = subject.table()
    before = set(vars(subject.fitted))
    for method in _methods(subject):
        predict = getattr(subject.fitted, method)
        require_equal(predict(X), predict(X), f"{method} must give the same twice")
    added = set(vars(subject.fitted)) - before
    require(not added, f"Predicting must set no attribute, it set {sorted(added)}.")


@applies_if(has_net)
def check_features_have_names(subject: Subject) -> None:
    """``transform`` returns a row per row, which ``set_output`` makes a DataFrame."""
    X, _ = subject.table()
    features = subject.fitted.transform(X)
    rule = "transform must return an array (n, d)"
    require(features.ndim == 2 and len(features) == len(X), f"{rule}, got {features}.")
    names = list(subject.fitted.get_feature_names_out())
    rule = f"get_feature_names_out must name the {features.shape[1]} columns"
    require(len(names) == features.shape[1], f"{rule}, got {len(names)} names.")
    framed = copy.copy(subject.fitted).set_output(transform="pandas").transform(X)
    same = list(framed.columns) == names and framed.index.equals(X.index)
    require(same, "set_output must keep the names of columns and the index of rows.")
    rule = "set_output must not change the values of transform"
    require_equal(framed.to_numpy(), features, rule)


@needs("precision")
def check_heads_compute_in_float32(subject: Subject) -> None:
    """Scores are not rounded to bfloat16, whose eight bits would tie rows."""
    X, y = subject.table(12, n_classes=3)
    # Three classes: with two, the difference of two rounded logits has more bits.
    scores = subject.fresh(precision="bfloat16").fit(X, y).decision_function(X)
    rounded = torch.from_numpy(scores).bfloat16().to(torch.float64).numpy()
    rule = 'With precision="bfloat16" scores must have more than the bits of bfloat16'
    require((rounded != scores).any(), f"{rule}, got {scores[:3].tolist()}.")


@applies_if(has_net)
def check_outputs_must_be_finite(subject: Subject) -> None:
    """Outputs that are NaN are an error that names the rows, not predictions."""
    X, _ = subject.table()
    # A pickle, as a shallow copy would spoil the net that other checks use.
    spoilt = pickle.loads(pickle.dumps(subject.fitted))
    parameters = spoilt.net_.module_.parameters()
    trained = [p for p in parameters if p.requires_grad]
    for parameter in trained:
        parameter.data.fill_(np.nan)
    # Not transform: features may come before all that is trained.
    for method in ANSWERS if trained else ():
        with must_raise(ValueError, "row0", f"{method} must refuse outputs of NaN"):
            getattr(spoilt, method)(X)
