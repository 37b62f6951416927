"""Pipelines and searches around classifiers: saved with skops, and nothing executed."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import skops.io
from contract import ToyClassifier, small
from saved import X, edit, open_toy
from scipy.sparse import csr_matrix
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import robustmm
from robustmm import (
    EnsembleSelection,
    LinearProbeClassifier,
    OutOfFoldFeatures,
    TunedThresholdsClassifier,
    persistence,
)
from robustmm.persistence.tree import Member, dump_tree, load_tree

PROBE = LinearProbeClassifier("robustmm/tiny-clip", device="cpu")
WIDE = X.assign(
    price=np.arange(len(X)) * 1.5, shop=np.array(["a", "b"])[np.arange(len(X)) % 2]
)
TWO = np.array(["no", "yes"])[np.arange(len(X)) % 2]
LABELS = np.column_stack([np.arange(len(X)) % 2, np.arange(len(X)) % 3 == 0]).astype(
    int
)


def beside_columns(estimator=PROBE):
    return ColumnTransformer(
        [
            (
                "seen",
                OutOfFoldFeatures(estimator, cv=2, random_state=0),
                ["image", "text"],
            ),
            ("number", StandardScaler(), ["price"]),
            ("kind", OneHotEncoder(handle_unknown="ignore"), ["shop"]),
        ]
    )


def fitted_pipeline():
    return make_pipeline(beside_columns(), LogisticRegression()).fit(WIDE, TWO)


COMPOSED = {
    "pipeline": fitted_pipeline,
    "columns": lambda: beside_columns().fit(WIDE, TWO),
    "features": lambda: OutOfFoldFeatures(PROBE, cv=2).fit(X, TWO),
    "search": lambda: GridSearchCV(
        make_pipeline(beside_columns(), LogisticRegression()),
        {"columntransformer__seen__estimator": [PROBE, small(ToyClassifier)]},
        cv=2,
        scoring=["accuracy", "f1_macro"],
        refit="accuracy",
    ).fit(WIDE, TWO),
    "thresholds": lambda: TunedThresholdsClassifier(
        PROBE, cv=2, scoring="f1_micro", thresholds=5
    ).fit(X, LABELS),
    "calibrated": lambda: CalibratedClassifierCV(PROBE, cv=2, method="temperature").fit(
        X, TWO
    ),
    "frozen": lambda: CalibratedClassifierCV(
        FrozenEstimator(small(ToyClassifier).fit(X, TWO)), method="isotonic"
    ).fit(X, TWO),
    "selection": lambda: EnsembleSelection(
        [("a", clone(PROBE).fit(X, TWO)), ("b", small(ToyClassifier).fit(X, TWO))]
    ).fit(X, TWO),
    "stack": lambda: StackingClassifier(
        [("a", PROBE), ("b", small(ToyClassifier))], LogisticRegression(), cv=2
    ).fit(X, TWO),
}


def outputs(estimator):
    name = "predict_proba" if hasattr(estimator, "predict_proba") else "transform"
    return np.asarray(getattr(estimator, name)(WIDE))


@pytest.fixture(scope="module")
def pipeline():
    return fitted_pipeline()


@pytest.fixture
def saved(pipeline, tmp_path):
    robustmm.save(pipeline, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", COMPOSED)
def test_what_stands_around_classifiers_comes_back(name, tmp_path):
    model = COMPOSED[name]()
    robustmm.save(model, tmp_path)
    again = open_toy(tmp_path, device="cpu")
    assert type(again) is type(model)
    np.testing.assert_allclose(outputs(again), outputs(model), atol=1e-6)
    if hasattr(model, "predict"):
        np.testing.assert_array_equal(again.predict(WIDE), model.predict(WIDE))
    if name == "search":
        assert again.cv_results_["rank_test_accuracy"].tolist()
    # What was cloned and not fitted is there too, and fits.
    target = LABELS if name == "thresholds" else TWO
    again.fit(WIDE, target)
    assert {file.suffix for file in tmp_path.iterdir()} == {
        ".json",
        ".safetensors",
        ".skops",
    }


SCRIPT = """
import sys, pickle, numpy as np, robustmm, torch
torch.set_num_threads(1)
X, expected = pickle.load(open(sys.argv[2], "rb"))
opened = robustmm.load(sys.argv[1], device="cpu")
np.testing.assert_allclose(opened.predict_proba(X), expected, atol=1e-6)
"""


@pytest.mark.slow
def test_another_process_predicts_the_same(pipeline, saved, tmp_path):
    pd.to_pickle((WIDE, pipeline.predict_proba(WIDE)), tmp_path / "rows")
    command = [sys.executable, "-c", SCRIPT, str(saved), str(tmp_path / "rows")]
    subprocess.run(command, check=True, timeout=120)


def test_an_included_backbone_is_there_once_for_all(pipeline, tmp_path):
    robustmm.save(pipeline, tmp_path, include_backbone=True)
    (inside,) = (file for file in tmp_path.iterdir() if file.is_dir())
    again = robustmm.load(tmp_path, device="cpu")
    features = again[0].named_transformers_["seen"]
    for clf in (features.estimator, features.estimator_):
        assert clf.backbone == str(inside.resolve())
    np.testing.assert_allclose(outputs(again), outputs(pipeline), atol=1e-6)
    robustmm.save(again, tmp_path)
    assert inside.is_dir()
    robustmm.save(small(ToyClassifier).fit(X, TWO), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failure_in_the_middle_leaves_the_old_pipeline(pipeline, saved, monkeypatch):
    before = {file.name for file in saved.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(persistence, "replace_bytes", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            robustmm.save(pipeline, saved)
    assert {file.name for file in saved.iterdir()} == before
    robustmm.load(saved, device="cpu")


def test_memory_callbacks_and_requests_stay_behind(tmp_path):
    with config_context(enable_metadata_routing=True):
        last = LogisticRegression().set_fit_request(sample_weight=True)
    model = make_pipeline(
        OutOfFoldFeatures(PROBE, cv=2), last, memory=str(tmp_path / "cache")
    ).fit(X, TWO)
    robustmm.save(model, tmp_path / "model")
    again = robustmm.load(tmp_path / "model", device="cpu")
    assert again.memory is None
    assert model.memory is not None
    assert not hasattr(again[-1], "_metadata_request")


def double(values):
    return values * 2


def around(function):
    return make_pipeline(
        beside_columns(), FunctionTransformer(function), LogisticRegression()
    ).fit(WIDE, TWO)


def test_functions_that_have_no_name_are_refused_with_the_reason(tmp_path):
    def inner(values):
        return values

    for function in (lambda values: values, inner):
        with pytest.raises(
            TypeError, match=r"func of FunctionTransformer .* holds no programs"
        ):
            robustmm.save(around(function), tmp_path / "model")
    with pytest.raises(TypeError, match="cannot be imported by its name"):
        dump_tree(FunctionTransformer(np.add, kw_args={"where": StandardScaler().fit}))
    assert not (tmp_path / "model").exists()


def test_functions_with_a_name_are_opened_by_who_trusts_them(tmp_path, monkeypatch):
    module = type(sys)("trusted_functions")
    module.double = double
    monkeypatch.setitem(sys.modules, "trusted_functions", module)
    monkeypatch.setattr(double, "__module__", "trusted_functions")
    model = around(double)
    robustmm.save(model, tmp_path)
    with pytest.raises(
        ValueError, match=r"not trusted: \['trusted_functions.double'\]"
    ):
        robustmm.load(tmp_path, device="cpu")
    again = robustmm.load(tmp_path, device="cpu", trusted=["trusted_functions.double"])
    np.testing.assert_allclose(outputs(again), outputs(model), atol=1e-6)
    with pytest.raises(TypeError, match="trusted must be a list of names, got True"):
        robustmm.load(tmp_path, trusted=True)


def test_forests_have_to_be_trusted(tmp_path):
    forest = RandomForestClassifier(2, random_state=0)
    model = make_pipeline(beside_columns(), forest).fit(WIDE, TWO)
    robustmm.save(model, tmp_path)
    with pytest.raises(ValueError, match=r"\['sklearn.tree._tree.Tree'\].*may crash"):
        robustmm.load(tmp_path, device="cpu")
    again = robustmm.load(tmp_path, device="cpu", trusted=["sklearn.tree._tree.Tree"])
    np.testing.assert_allclose(outputs(again), outputs(model), atol=1e-6)


def test_without_skops_the_message_names_the_extra(pipeline, saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops.io", None)
    for act in (lambda: robustmm.save(pipeline, saved), lambda: robustmm.load(saved)):
        with pytest.raises(ImportError, match=r"pip install \"robustmm\[pipelines\]\""):
            act()


def test_what_is_not_fitted_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="not fitted"):
        robustmm.save(make_pipeline(PROBE), tmp_path)


# Attacks ------------------------------------------------------------------------------


def rewrite_tree(folder, content):
    """Put another tree into a saved pipeline, and its facts with it."""
    (file,) = folder.glob("*.skops")
    file.write_bytes(content)
    facts = persistence.facts(folder, [file.name])
    edit(folder, lambda document: document["files"].update(facts))


def archive(files, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return stream.getvalue()


def parts_of(folder):
    (file,) = folder.glob("*.skops")
    with zipfile.ZipFile(file) as source:
        return {name: source.read(name) for name in source.namelist()}


def change_schema(folder, change):
    parts = parts_of(folder)
    schema = json.loads(parts["schema.json"])
    change(schema)
    rewrite_tree(folder, archive(parts | {"schema.json": json.dumps(schema)}))


def evil(folder, kind):
    """Trees that would run code, were they believed."""
    node = {"__class__": "system", "__module__": "os", "__loader__": kind}
    content = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode"}
    return node | {"content": content | {"content": []}, "protocol": 2}


@pytest.mark.parametrize(
    "kind", ["FunctionNode", "TypeNode", "ObjectNode", "ConstructorFromReduceNode"]
)
def test_a_forbidden_type_is_named_and_not_imported(saved, kind, monkeypatch):
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    forged = evil(saved, kind)
    forged["__module__"] = "antigravity"
    forged["protocol"] = json.loads(parts_of(saved)["schema.json"])["protocol"]
    rewrite_tree(saved, archive({"schema.json": json.dumps(forged)}))
    with pytest.raises(ValueError, match=r"not trusted: \['antigravity.system'\]"):
        robustmm.load(saved, device="cpu")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("name", ["predict", "__deepcopy__", "_validate_params"])
def test_nothing_takes_the_place_of_a_method(pipeline, name):
    from sklearn.preprocessing import Binarizer

    step = Binarizer().fit([[1]])
    vars(step)[name] = np.log
    model = Pipeline([("a", step), ("b", LogisticRegression())])
    data = skops.io.dumps(model)
    if name == "predict":
        vars(step).pop(name)
        vars(model)[name] = np.log
        data = skops.io.dumps(model)
    with pytest.raises(ValueError, match=f"was saved has '{name}'"):
        load_tree(data)


def test_a_compressed_tree_and_odd_names_are_refused(saved):
    parts = parts_of(saved)
    rewrite_tree(saved, archive(parts, zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="must not be compressed"):
        robustmm.load(saved, device="cpu")
    for name in ("../x.npy", "/etc/x.npy", "a/b.npy", "x.py"):
        rewrite_tree(saved, archive(parts | {name: b""}))
        with pytest.raises(ValueError, match=r"must hold a schema and arrays, got \['"):
            robustmm.load(saved, device="cpu")


def test_an_array_that_claims_to_be_larger_takes_no_memory():
    data = skops.io.dumps(StandardScaler().fit([[1.0], [2.0]]))
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    name = next(n for n in parts if n.endswith(".npy") and b"(1,)" in parts[n])
    forged = parts[name].replace(b"(1,), }         ", b"(999999999,), } ")
    assert forged != parts[name]
    with pytest.raises(ValueError, match="must be as large as that"):
        load_tree(archive(parts | {name: forged}))


def test_sparse_matrices_come_back_within_bounds(monkeypatch):
    step = FunctionTransformer(kw_args={"m": csr_matrix(np.eye(3))})
    data = dump_tree(step.fit([[1]]))
    with pytest.raises(ValueError, match=r"\['scipy.sparse._csr.csr_matrix'\]"):
        load_tree(data)
    again = load_tree(data, [csr_matrix])
    np.testing.assert_array_equal(again.kw_args["m"].toarray(), np.eye(3))
    monkeypatch.setattr("robustmm.persistence.tree._MAX_INFLATED_BYTES", 100)
    with pytest.raises(ValueError, match="Sparse matrices must have at most 100"):
        load_tree(data, [csr_matrix])


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "damaged"),
        (b"no archive", "damaged"),
        (archive({"schema.json": "[" * 100_000}), "damaged"),
        (archive({"schema.json": "{}"}), "damaged"),
        (archive({"other.json": "{}"}), "must hold a schema"),
        (skops.io.dumps([1, 2]), "must be an estimator, got list"),
        (skops.io.dumps(Member("0")), "must be an estimator, got Member"),
    ],
    # Archives hold the time at which they were made, which is no name of a test.
    ids=["empty", "no archive", "deep", "no node", "no schema", "list", "member"],
)
def test_what_is_no_tree_is_refused(saved, content, rule):
    rewrite_tree(saved, content)
    with pytest.raises(ValueError, match=rule):
        robustmm.load(saved, device="cpu")


def forget(document):
    document["members"].popitem()


def add(document):
    document["members"]["9"] = document["members"]["0"]


def repeat(document):
    one, other = fitted_of(document)
    document["members"][other] = document["members"][one]


def fitted_of(document):
    """The key of the fitted member, and that of another one."""
    return sorted(
        document["members"], key=lambda k: "state" not in document["members"][k]
    )[:2]


def rename(document):
    document["class"] = "ColumnTransformer"


def unknown(document):
    document["members"]["0"]["class"] = "Popen"


def unhashable(document):
    document["members"]["0"]["class"] = ["Popen"]


def junk(document):
    document["members"]["0"] = 3


def state(document):
    key, _ = fitted_of(document)
    document["members"][key]["state"]["predict"] = 3


def no_tree(document):
    document["tree"] = document["weights"]


def outside(document):
    document["tree"] = "../tree-0123456789ab.skops"
    document["files"][document["tree"]] = {"bytes": 1, "hash": "0"}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (forget, "a place for each of its"),
        (add, "a place for each of its|name the same array"),
        (repeat, "name the same array"),
        (rename, "must be a 'ColumnTransformer'"),
        (unknown, "got 'Popen'"),
        (unhashable, "must have parameters and a state|must be one of"),
        (junk, "must have parameters and a state|must be one of"),
        (state, "sets 'predict'"),
        (no_tree, "lists no tree"),
        (outside, "has a file named '../tree"),
    ],
)
def test_forged_members_are_refused(saved, change, rule):
    edit(saved, change)
    with pytest.raises(ValueError, match=rule):
        robustmm.load(saved, device="cpu")


@pytest.mark.parametrize("kind", ["*.skops", "*.safetensors"])
def test_files_of_another_model_are_refused(saved, tmp_path, kind):
    other = make_pipeline(OutOfFoldFeatures(PROBE, cv=2), StandardScaler()).fit(X, TWO)
    robustmm.save(other, tmp_path / "other")
    (mine,), (theirs,) = saved.glob(kind), (tmp_path / "other").glob(kind)
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(ValueError, match="not the file that was saved"):
        robustmm.load(saved, device="cpu")
    mine.unlink()
    with pytest.raises(ValueError, match="must be a file, and there is none"):
        robustmm.load(saved, device="cpu")
