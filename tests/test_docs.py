"""What the README and the documentation show does run."""

import doctest
import importlib.util
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from robustmm import drop_modalities
from robustmm.datasets import make_scenes
from robustmm.testing import check_estimator

PROJECT = Path(__file__).parents[1]
PAGES = sorted(p for p in PROJECT.glob("docs/**/*.rst") if ">>> " in p.read_text())
COMMANDS = (
    "pip install -c constraints.txt -e . && python examples/quickstart.py",
    'pip install -c constraints.txt -e ".[test]" && pytest',
)


@pytest.fixture
def late_fusion():
    path = PROJECT / "docs" / "code" / "late_fusion.py"
    spec = importlib.util.spec_from_file_location("late_fusion", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_examples_on_a_page_give_what_is_printed(page):
    failures, attempted = doctest.testfile(str(page), module_relative=False)
    assert attempted > 0
    assert failures == 0


def test_the_readme_example_runs():
    text = (PROJECT / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 10
    names = {}
    exec(example.replace("make_scenes(600", "make_scenes(60"), names)
    assert len(names["clf"].predict(names["X_test"])) == 15


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_gives_the_command(command):
    lines = (PROJECT / "README.md").read_text().splitlines()
    assert command in lines


def test_ci_runs_the_readme_command():
    lines = (PROJECT / ".ci" / "run").read_text().splitlines()
    assert COMMANDS[1] in [line.strip() for line in lines]


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_links_into_the_repository_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", (PROJECT / page).read_text())
    inner = [link for link in links if "://" not in link]
    assert [link for link in inner if not (PROJECT / link).is_file()] == []


def test_the_example_method_learns_and_survives_pickling(late_fusion, monkeypatch):
    monkeypatch.setitem(sys.modules, "late_fusion", late_fusion)
    X, y = make_scenes(40, n_classes=2, random_state=0)
    X = drop_modalities(X, rate=0.5, scenario="both", random_state=0)
    clf = late_fusion.LateFusionClassifier(max_epochs=3, random_state=0).fit(X, y)
    losses = clf.history_["train_loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_allclose(again.predict_proba(X), clf.predict_proba(X), rtol=1e-6)


def test_the_example_method_keeps_all_promises(late_fusion, monkeypatch):
    monkeypatch.setitem(sys.modules, "late_fusion", late_fusion)
    estimator = late_fusion.LateFusionClassifier(max_epochs=1, random_state=0)
    results = check_estimator(estimator)
    assert "check_every_trained_parameter_moves" in {r["check_name"] for r in results}


def test_every_constraint_is_an_exact_version():
    lines = (PROJECT / "constraints.txt").read_text().split()
    assert lines
    assert [s for s in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.]+", s)] == []
