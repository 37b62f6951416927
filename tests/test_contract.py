"""What every public classifier promises; new ones are found by themselves."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from contract import (
    CELLS,
    NULLS,
    as_cell,
    frame_with_holes,
    noise_image,
    public_classifiers,
    small,
)
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

pytestmark = pytest.mark.parametrize(
    "cls", public_classifiers(), ids=lambda cls: cls.__name__
)

_FITTED = {}


@pytest.fixture
def fitted(cls):
    """A fitted instance per class, made once; tests must not change it."""
    if cls not in _FITTED:
        X, y = frame_with_holes()
        _FITTED[cls] = small(cls).fit(X, y)
    return _FITTED[cls]


def test_constructor_only_assigns(cls):
    estimator = cls()
    attributes = vars(estimator)
    assert all(attributes[k] is v for k, v in estimator.get_params().items())
    assert not [name for name in attributes if name.endswith("_")]
    copy = clone(small(cls))
    assert repr(copy.get_params()) == repr(small(cls).get_params())


def test_every_trainable_parameter_moves(cls):
    X, y = frame_with_holes()
    estimator = small(cls, lr=1e-2) if "lr" in cls().get_params() else small(cls)
    before = {}

    class Snapshot(torch.nn.Module):
        pass

    build = estimator._build_module

    def remember(backbone, n_outputs):
        module = build(backbone, n_outputs)
        named = module.named_parameters()
        before.update({k: p.detach().clone() for k, p in named if p.requires_grad})
        return module

    estimator._build_module = remember
    estimator.set_params(max_epochs=2).fit(X, y)
    after = dict(estimator.net_.module_.named_parameters())
    still = [name for name, value in before.items() if torch.equal(value, after[name])]
    assert before
    assert still == []


def test_frozen_backbone_does_not_move(cls, fitted):
    again = fitted._load_backbone(torch.device("cpu"))
    assert again.fingerprint == fitted.net_.module_.backbone.fingerprint
    module = fitted.net_.module_
    shared = {p.data_ptr() for p in again.parameters()}
    assert shared & {p.data_ptr() for p in module.parameters() if not p.requires_grad}


def test_fitted_attributes(cls, fitted):
    assert fitted.n_iter_ == len(fitted.history_) == 1
    assert list(fitted.feature_names_in_) == ["image", "text"]
    assert fitted.n_features_in_ == 2
    assert 0 < fitted.n_trainable_parameters_ < fitted.n_parameters_
    assert fitted.missing_report_["text_missing"] == 8
    assert fitted.missing_report_["image_missing"] == 8
    assert fitted.missing_report_["complete"] == 8
    assert np.isfinite(fitted.history_["train_loss"]).all()


def test_predictions_have_the_promised_shapes(cls, fitted):
    X, y = frame_with_holes()
    proba = fitted.predict_proba(X)
    assert proba.shape == (24, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert set(fitted.predict(X)) <= set(y)
    np.testing.assert_array_equal(
        fitted.predict(X), fitted.classes_[proba.argmax(axis=1)]
    )
    assert fitted.decision_function(X).shape == (24,)
    assert fitted.transform(X).shape[0] == 24
    assert 0 <= fitted.score(X, y) <= 1


def test_three_classes_have_a_score_each(cls):
    X, y = frame_with_holes(n_classes=3)
    estimator = small(cls).fit(X, y)
    assert estimator.decision_function(X).shape == (24, 3)
    assert estimator.predict_proba(X).shape == (24, 3)


def test_predictions_do_not_depend_on_batch_mates(cls, fitted):
    X, _ = frame_with_holes()
    together = fitted.decision_function(X)
    order = np.random.default_rng(0).permutation(len(X))
    shuffled = fitted.decision_function(X.iloc[order])
    np.testing.assert_allclose(shuffled, together[order], atol=1e-5)
    for i in (0, 1, 2):
        alone = fitted.decision_function(X.iloc[[i]])
        np.testing.assert_allclose(alone, together[[i]], atol=1e-5)


def test_fit_is_repeatable_and_leaves_global_generators_alone(cls):
    X, y = frame_with_holes()
    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = small(cls).fit(X, y).decision_function(X)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    np.testing.assert_array_equal(small(cls).fit(X, y).decision_function(X), first)


def test_inputs_are_not_changed(cls):
    X, y = frame_with_holes()
    kept, labels = X.copy(), y.copy()
    small(cls).fit(X, y).predict(X)
    pd.testing.assert_frame_equal(X, kept)
    np.testing.assert_array_equal(y, labels)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("null", NULLS)
def test_any_null_with_any_cell(cls, fitted, kind, null, tmp_path):
    cells = [as_cell(noise_image(i), kind, tmp_path) for i in range(4)]
    table = pd.DataFrame({"image": pd.Series(cells, dtype=object), "text": "a hill"})
    table.loc[1, "image"] = NULLS[null]
    table["text"] = table["text"].astype(object)
    table.loc[2, "text"] = NULLS[null]
    table.loc[3, "text"] = " \n"
    reference = table.copy()
    reference.loc[1, "image"] = None
    reference.loc[[2, 3], "text"] = None
    reference["image"] = pd.Series(
        [noise_image(0), None, noise_image(2), noise_image(3)], dtype=object
    )
    np.testing.assert_allclose(
        fitted.decision_function(table),
        fitted.decision_function(reference),
        atol=1e-5,
    )


@pytest.mark.parametrize("null", NULLS)
def test_fit_takes_any_null(cls, null):
    X, y = frame_with_holes(12)
    X = X.where(X.notna(), NULLS[null])
    report = small(cls).fit(X, y).missing_report_
    assert (report["image_missing"], report["text_missing"]) == (4, 4)


@pytest.mark.parametrize("column", ["image", "text"])
def test_a_whole_column_may_be_missing(cls, column):
    X, y = frame_with_holes(12)
    kept = X[X.columns.difference([column])[0]].notna().to_numpy()
    X, y = X[kept], y[kept]
    X[column] = None
    estimator = small(cls).fit(X, y)
    assert np.isfinite(estimator.predict_proba(X)).all()


def test_array_is_read_by_position(cls, fitted):
    X, y = frame_with_holes()
    estimator = small(cls).fit(X.to_numpy(dtype=object), y)
    np.testing.assert_array_equal(
        estimator.decision_function(X.to_numpy(dtype=object)),
        fitted.decision_function(X),
    )


def test_rows_without_any_modality_get_the_prior(cls):
    X, y = frame_with_holes(16)
    X.iloc[:4] = None
    y[:4] = y[5]
    with pytest.warns(UserWarning, match="4 of 16 rows have neither"):
        estimator = small(cls).fit(X, y)
    np.testing.assert_allclose(
        estimator.class_prior_, np.unique(y, return_counts=True)[1] / 16
    )
    with pytest.warns(UserWarning, match="4 of 16 rows have neither"):
        proba = estimator.predict_proba(X)
    np.testing.assert_allclose(proba[:4], np.tile(estimator.class_prior_, (4, 1)))


def test_no_modality_at_all_is_an_error(cls):
    X, y = frame_with_holes(8)
    X.iloc[:] = None
    with pytest.raises(ValueError, match="At least one row must have"):
        small(cls).fit(X, y)


def test_bad_images_are_listed_by_row(cls):
    X, y = frame_with_holes(12)
    X.iloc[1, 0], X.iloc[2, 0] = b"not a picture", "nowhere.png"
    estimator = small(cls)
    with pytest.raises(ValueError, match=r"2 image cells.*'row1'.*'row2'"):
        estimator.fit(X, y)
    assert "net_" not in vars(estimator)
    estimator.set_params(on_bad_image="missing")
    # Row 1 had no text, so that with its image it loses everything.
    with pytest.warns(UserWarning, match="2 image cells|1 of 12 rows") as caught:
        estimator.fit(X, y)
    assert len(caught) == 2
    assert set(estimator.missing_report_["bad_images"]) == {"row1", "row2"}
    with pytest.warns(UserWarning, match="2 image cells|1 of 12 rows") as caught:
        proba = estimator.predict_proba(X)
    assert len(caught) == 2
    np.testing.assert_allclose(proba[1], estimator.class_prior_)
    estimator.set_params(on_bad_image="raise")
    with pytest.raises(ValueError, match=r"2 image cells.*'row1'.*'row2'"):
        estimator.predict(X)


def test_wrong_columns_are_named(cls, fitted):
    X, y = frame_with_holes(8)
    with pytest.raises(ValueError, match="image"):
        small(cls).fit(X.rename(columns={"image": "picture"}), y)
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(X.rename(columns={"image": "picture"}))
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        small(cls).fit(X.iloc[:0], y[:0])


def test_unfitted_says_so(cls):
    X, _ = frame_with_holes(6)
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        with pytest.raises(NotFittedError):
            getattr(small(cls), method)(X)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        (["a"] * 12, "only one class"),
        ([1.5, 2.5, 3.5] * 4, "Unknown label type"),
        (["a", "b"] * 5, "inconsistent numbers of samples"),
        ([1.0, np.nan] * 6, "NaN"),
        (["a", None] * 6, "NaN"),
    ],
)
def test_bad_targets(cls, y, message):
    X, _ = frame_with_holes(12)
    with pytest.raises(ValueError, match=message):
        small(cls).fit(X, y)


@pytest.mark.parametrize(
    "labels", [[10, 12], [True, False], ["x", "y"], [-1.0, 1.0]], ids=str
)
def test_labels_round_trip(cls, labels):
    X, y = frame_with_holes(12)
    y = np.array(labels)[(y == y[0]).astype(int)]
    estimator = small(cls).fit(X, y)
    assert estimator.predict(X).dtype == y.dtype
    np.testing.assert_array_equal(estimator.classes_, np.unique(y))


def test_multilabel(cls):
    X, _ = frame_with_holes(16)
    Y = np.random.default_rng(0).integers(0, 2, (16, 3))
    names = pd.DataFrame(Y, columns=["drama", "comedy", "war"])
    estimator = small(cls).fit(X, names)
    assert list(estimator.classes_) == ["drama", "comedy", "war"]
    assert estimator.predict_proba(X).shape == (16, 3)
    assert set(np.unique(estimator.predict(X))) <= {0, 1}
    array = small(cls).fit(X, Y)
    np.testing.assert_array_equal(array.predict_proba(X), estimator.predict_proba(X))


def test_sample_weight_of_zero_is_removal(cls):
    X, y = frame_with_holes(18)
    weight = np.ones(18)
    weight[3:7] = 0
    kept = weight > 0
    weighted = small(cls).fit(X, y, sample_weight=weight)
    removed = small(cls).fit(X[kept], y[kept])
    np.testing.assert_allclose(
        weighted.decision_function(X), removed.decision_function(X), atol=1e-6
    )
    ones = small(cls).fit(X, y, sample_weight=np.full(18, 3.0))
    np.testing.assert_allclose(
        ones.decision_function(X), small(cls).fit(X, y).decision_function(X), atol=1e-6
    )


def test_class_weight_shifts_predictions(cls):
    X, y = frame_with_holes(24)
    heavy, light = np.unique(y)
    weighted = small(cls, class_weight={heavy: 1000, light: 0.001}, max_epochs=6)
    plain = small(cls, max_epochs=6).fit(X, y).predict_proba(X)[:, 0].mean()
    assert weighted.fit(X, y).predict_proba(X)[:, 0].mean() > plain


def test_early_stopping_keeps_the_best_epoch(cls):
    X, y = frame_with_holes(24)
    estimator = small(cls, early_stopping=True, max_epochs=3).fit(X, y)
    assert estimator.history_["valid_loss"].notna().all()


def test_grid_search_pipeline_and_cross_validation(cls):
    X, y = frame_with_holes(24)
    keep = FunctionTransformer(feature_names_out="one-to-one")
    search = GridSearchCV(small(cls), {"batch_size": [6, 12]}, cv=2).fit(X, y)
    assert search.best_params_["batch_size"] in (6, 12)
    scores = cross_validate(make_pipeline(keep, small(cls)), X, y, cv=2)
    assert np.isfinite(scores["test_score"]).all()


def test_pickle_predicts_the_same(cls, fitted):
    X, _ = frame_with_holes()
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(
        copy.predict_proba(X), fitted.predict_proba(X), rtol=0, atol=1e-6
    )


def test_pickle_holds_the_trained_tensors_only(cls, fitted):
    data = pickle.dumps(fitted)
    trained = 4 * fitted.n_trainable_parameters_
    assert len(data) < 1.2 * trained + 60_000
    copy = pickle.loads(data)
    pd.testing.assert_frame_equal(copy.history_, fitted.history_)
    assert len(copy.net_.history) == 1


def test_another_backbone_is_refused_when_a_pickle_opens(cls, fitted):
    state = fitted.__getstate__()
    state["_trained"]["fingerprint"] = "0" * 64
    with pytest.raises(ValueError, match="differs from the one"):
        cls.__new__(cls).__setstate__(state)


def test_quiet_by_default(cls, capfd):
    X, y = frame_with_holes(12)
    small(cls).fit(X, y).predict(X)
    assert capfd.readouterr() == ("", "")
    small(cls, verbose=1).fit(X, y)
    assert "fit" in capfd.readouterr().err


def test_interrupt_propagates_and_leaves_the_estimator_as_it_was(cls):
    from skorch.callbacks import Callback

    class Interrupt(Callback):
        def on_batch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    X, y = frame_with_holes(12)
    estimator = small(cls, net_params={"callbacks": [Interrupt()]})
    before = dict(vars(estimator))
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(X, y)
    assert vars(estimator) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_epochs", 0),
        ("batch_size", 2.5),
        ("lr", -1.0),
        ("on_bad_image", "skip"),
        ("device", "tpu"),
        ("lr_schedule", "step"),
    ],
)
def test_bad_parameters_are_named(cls, name, value):
    if name not in cls().get_params():
        value, name = 0, "max_epochs"
    X, y = frame_with_holes(8)
    with pytest.raises((ValueError, TypeError), match=f"{name} must be .*{value!r}"):
        small(cls, **{name: value}).fit(X, y)


@pytest.mark.cuda
def test_trains_on_cuda_and_opens_on_the_cpu(cls):
    X, y = frame_with_holes(16)
    estimator = small(cls, device="cuda").fit(X, y)
    state = pickle.dumps(estimator.set_params(device="cpu"))
    with warnings.catch_warnings():
        copy = pickle.loads(state)
    np.testing.assert_allclose(
        copy.predict_proba(X), estimator.predict_proba(X), atol=2e-2
    )
