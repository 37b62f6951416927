"""Checks of life among scikit-learn's tools, and of pickles."""

import pickle

import numpy as np
import pandas as pd
from sklearn import config_context
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_html_repr

from .subject import (
    Subject,
    applies_if,
    has_net,
    must_raise,
    needs,
    require,
    require_equal,
)


class Witness:
    """A callback of scikit-learn that writes down what it is told."""

    def __init__(self):
        self.told = []

    def setup(self, estimator, context) -> None:
        """Write down that a fit begins."""
        self.told.append("setup")

    def teardown(self, estimator, context) -> None:
        """Write down that a fit is over."""
        self.told.append("teardown")

    def on_fit_task_begin(self, estimator, context) -> None:
        """Nothing: what begins also ends."""

    def on_fit_task_end(self, estimator, context, *, X, fitted_estimator) -> None:
        """Write down the task, and that the estimator predicts already."""
        self.told.append(context.task_name)
        fitted_estimator.predict(X)


def _keep() -> FunctionTransformer:
    return FunctionTransformer(feature_names_out="one-to-one")


@needs("batch_size")
def check_grid_search_over_a_pipeline(subject: Subject) -> None:
    """A search over a parameter of the last step of a pipeline works."""
    X, y = subject.table()
    # A step in front that passes the frame on: the names of columns must survive.
    pipeline = make_pipeline(_keep(), subject.fresh())
    name = f"{pipeline.steps[-1][0]}__batch_size"
    once = StratifiedShuffleSplit(1, test_size=0.5, random_state=0)
    # Without error_score, a fit that fails is a warning and a score of NaN.
    search = GridSearchCV(pipeline, {name: [6]}, cv=once, error_score="raise")
    search.fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    require(np.isfinite(scores).all(), f"Every fold must have a score, got {scores}.")
    require(set(search.predict(X)) <= set(y), "A search must predict labels of y.")
    batch_size = search.best_estimator_[-1].batch_size
    require(batch_size == 6, f"The search must set batch_size=6, got {batch_size}.")


def check_sample_weight_is_routed(subject: Subject) -> None:
    """With metadata routing, weights pass through a pipeline."""
    X, y = subject.table()
    with config_context(enable_metadata_routing=True):
        estimator = subject.fresh().set_fit_request(sample_weight=True)
        pipeline = make_pipeline(_keep(), estimator)
        # Seen by an error, before anything is trained.
        rule = "Routed sample weights must reach fit, so that it refuses negative ones"
        with must_raise(ValueError, "[Nn]egative", rule):
            pipeline.fit(X, y, sample_weight=-np.ones(len(X)))


def check_global_configuration_makes_no_difference(subject: Subject) -> None:
    """scikit-learn's ``set_config`` changes no model."""
    X, y = subject.table()
    options = {"transform_output": "pandas", "enable_metadata_routing": True}
    with config_context(assume_finite=True, **options):
        found = subject.fresh().fit(X, y).decision_function(X)
    rule = f"Under set_config(assume_finite=True, {options}) a model must be the same"
    require_equal(found, subject.fitted.decision_function(X), rule, atol=1e-5)


def check_representations(subject: Subject) -> None:
    """The text and the HTML that a notebook shows name the class."""
    name = type(subject.fitted).__name__
    for text in (repr(subject.fitted), estimator_html_repr(subject.fitted)):
        require(name in text, f"What a notebook shows must name {name}.")


@applies_if(lambda subject: hasattr(subject.estimator, "set_callbacks"))
def check_callbacks_are_told(subject: Subject) -> None:
    """scikit-learn's callbacks hear of each epoch, if there are any, and of the fit."""
    witness = Witness()
    estimator = subject.fresh().set_callbacks(witness).fit(*subject.table(9))
    told = witness.told
    trained = has_net(subject) and subject.has("max_epochs")
    if trained or "epoch" in told:
        count, n_iter = told.count("epoch"), estimator.n_iter_
        rule = f"Callbacks must be told of all {n_iter} epochs"
        require(count == n_iter, f"{rule}, they were told of {count}.")
    around = [word for word in told if word != "epoch"]
    rule = "Callbacks must be set up, told of the fit and torn down"
    require(around == ["setup", "fit", "teardown"], f"{rule}, they were told {told}.")


def check_pickle_predicts_the_same(subject: Subject) -> None:
    """A pickle predicts what the estimator predicted."""
    X, _ = subject.table()
    opened = pickle.loads(pickle.dumps(subject.fitted))
    require_equal(
        opened.predict_proba(X),
        subject.fitted.predict_proba(X),
        "A pickle must predict what the estimator predicted",
        atol=1e-6,
    )
    if has_net(subject):
        same = opened.history_.equals(subject.fitted.history_)
        require(same, "A pickle must keep history_.")


def check_pickle_holds_no_frozen_weights(subject: Subject) -> None:
    """A pickle holds the trained tensors, and little more."""
    size = len(pickle.dumps(subject.fitted))
    trained = 4 * subject.fitted.n_trainable_parameters_
    if has_net(subject):  # what a method sums instead of training it
        named = dict(subject.fitted.net_.module_.named_buffers())
        own = [b for name, b in named.items() if not name.startswith("backbone.")]
        trained += sum(b.numel() * b.element_size() for b in own)
    rule = f"A pickle of {trained} bytes of trained weights must stay close to that"
    require(size < 1.2 * trained + 60_000, f"{rule}, got {size} bytes.")


def check_table_is_not_kept(subject: Subject) -> None:
    """The fitted estimator does not hold on to the training table."""
    kept = [k for k, v in vars(subject.fitted).items() if isinstance(v, pd.DataFrame)]
    kept = [name for name in kept if name != "history_"]
    require(not kept, f"fit must not keep tables, it kept {kept}.")
