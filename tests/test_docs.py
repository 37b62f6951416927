"""What the README and the documentation show does run."""

import doctest
import importlib.util
import pickle
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from robustmm import MultimodalClassifier, drop_modalities, load_backbone
from robustmm.datasets import make_scenes
from robustmm.testing import check_estimator

PROJECT = Path(__file__).parents[1]
MADE = {"_build", "generated", "auto_examples", "jupyter_execute"}
PAGES = sorted(
    p
    for p in PROJECT.glob("docs/**/*.rst")
    if not MADE & set(p.parts) and ">>> " in p.read_text()
)
METHODS = sorted(p for p in PROJECT.glob("docs/methods/*.rst") if p.stem != "index")
CODE = re.compile(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)")
COMMANDS = (
    'pip install -c constraints.txt -e ".[plot]" && python examples/quickstart.py',
    'pip install -c constraints.txt -e ".[test]" && pytest',
)


def load_code(name):
    """Import a file that a page shows."""
    path = PROJECT / "docs" / "code" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def late_fusion():
    return load_code("late_fusion")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_examples_on_a_page_give_what_is_printed(page):
    if "sklearn.callback" in page.read_text():
        pytest.importorskip("sklearn.callback")  # from scikit-learn 1.9 on
    failures, attempted = doctest.testfile(str(page), module_relative=False)
    assert attempted > 0
    assert failures == 0


@pytest.mark.parametrize("page", METHODS, ids=lambda p: p.stem)
def test_the_first_lines_on_the_page_of_a_method_run(page):
    text = page.read_text()
    code = textwrap.dedent(CODE.search(text)[1])
    assert text.index(f".. diagram:: {page.stem}") < CODE.search(text).start()
    assert len([line for line in code.splitlines() if line]) <= 5
    X, y = make_scenes(24, n_classes=4, random_state=0)
    X = drop_modalities(X, rate=0.5, scenario="both", random_state=0)
    halves = [y.isin(labels) for labels in np.split(np.unique(y), 2)]
    solved = re.search("Probe|Prototype|RanPAC", code)
    if not solved and "max_epochs" not in code:
        code = re.sub(r"(Classifier\(.*)\)", r"\1, max_epochs=1)", code)
    parts = {"X_train": X[:16], "y_train": y[:16], "X_test": X[16:]}
    names = parts | {"stages": [(X[half], y[half]) for half in halves]}
    exec(code, names)
    assert len(names["clf"].predict(X[16:])) == 8


def test_the_first_page_has_eight_lines_that_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (PROJECT / "docs" / "index.rst").read_text()
    code = textwrap.dedent(CODE.search(text)[1])
    assert len([line for line in code.splitlines() if line]) <= 8
    exec(code.replace("400", "60").replace("300", "40"), {})
    assert 0 <= float(capsys.readouterr().out) <= 1


def test_the_readme_example_runs():
    text = (PROJECT / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 10
    names = {}
    quick = {"make_scenes(600": "make_scenes(60", "time_limit=60": "time_limit=3"}
    for there, here in quick.items():
        assert there in example
        example = example.replace(there, here)
    exec(example, names)
    assert len(names["clf"].predict(names["X_test"])) == 15


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_gives_the_command(command):
    lines = (PROJECT / "README.md").read_text().splitlines()
    assert command in lines


def test_ci_runs_the_readme_command():
    lines = (PROJECT / ".ci" / "run").read_text().splitlines()
    assert COMMANDS[1] in [line.strip() for line in lines]


def test_links_in_the_changelog_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", (PROJECT / "CHANGELOG.md").read_text())
    inner = [link for link in links if "://" not in link]
    assert [link for link in inner if not (PROJECT / link).is_file()] == []


def test_links_in_the_readme_lead_somewhere_from_any_page():
    # An index of packages shows the README, and none of the files beside it.
    links = re.findall(r"\]\(([^)]+)\)", (PROJECT / "README.md").read_text())
    site = MultimodalClassifier._doc_link_template.partition("generated/")[0]
    assert len(links) > 10
    assert [link for link in links if not link.startswith("https://")] == []
    pages = [link.removeprefix(site) for link in links if link.startswith(site)]
    # The gallery is made of the examples when the site is built.
    written = [page for page in pages if not page.startswith("auto_examples/")]
    assert (
        len(written) == len(pages)
        or (PROJECT / "examples/GALLERY_HEADER.rst").is_file()
    )
    sources = [PROJECT / "docs" / page.partition("#")[0] for page in written]
    kinds = (".rst", ".md", ".ipynb")
    lost = [s for s in sources if not any(s.with_suffix(k).is_file() for k in kinds)]
    assert pages
    assert lost == []


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
    estimator = late_fusion.LateFusionClassifier._small()
    results = check_estimator(estimator)
    assert "check_every_trained_parameter_moves" in {r["check_name"] for r in results}


def test_the_example_method_does_not_run_an_encoder_without_rows(late_fusion):
    X, y = make_scenes(20, n_classes=2, random_state=0)
    X = X.assign(image=None)
    clf = late_fusion.LateFusionClassifier._small().fit(X, y)
    sizes = []
    stream = clf.net_.module_.backbone["image"]
    step = stream.step
    stream.step = lambda i, tokens, *rest: (
        sizes.append(len(tokens)),
        step(i, tokens, *rest),
    )[1]
    clf.predict(X)
    assert set(sizes) == {1}  # a single row, for the width of the zeros


@pytest.fixture
def prompted():
    """The module of the pieces that the page explains, in evaluation mode."""
    code = load_code("prompted")
    torch.manual_seed(0)
    backbone = load_backbone("robustmm/tiny-clip")
    return code, code.PromptedModule(backbone, n_outputs=3).eval()


def watch(stream):
    """Collect what enters the layers of a stream from now on."""
    seen, step = [], stream.step

    def watched(i, tokens, *rest):
        seen.append(tokens)
        return step(i, tokens, *rest)

    stream.step = watched
    return seen


def batch_of(n, present):
    size = load_backbone("robustmm/tiny-clip").image_config["size"]["height"]
    ids = torch.tensor([[1, 5, 6, 2]]).repeat(n, 1)
    return {
        "present": torch.tensor([present]).repeat(n, 1),
        "pixel_values": torch.randn(n, 3, size, size),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
    }


def test_the_page_s_pieces_learn_and_read_the_context(prompted):
    _, module = prompted
    batch = batch_of(4, [True, True])
    module.train()(**batch).sum().backward()
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    assert {n.split(".")[0] for n in trained} == {"prompts", "backbone", "head"}
    # The scale is for rows that lack something, of which there is none here.
    still = [n for n, p in trained.items() if p.grad is None or not p.grad.any()]
    assert [n for n in still if not n.endswith("scale")] == []
    module.zero_grad()
    module(**batch_of(4, [True, False])).sum().backward()
    scales = [p for n, p in trained.items() if n.endswith("scale")]
    assert any(p.grad is not None and p.grad.any() for p in scales)


def test_the_page_s_adapter_raises_where_the_context_is_not_set(prompted):
    _, module = prompted
    stream, batch = module.backbone["text"], batch_of(2, [True, True])
    with pytest.raises(RuntimeError, match="complete must be in the context"):
        stream.run(stream.embed(**batch))


def test_the_page_s_prompt_enters_behind_the_norm_as_it_is(prompted):
    code, module = prompted
    stream = module.backbone["image"]
    tokens = code.with_presence(
        stream.embed(**batch_of(2, [True, True])), torch.ones(2, 2, dtype=torch.bool)
    )
    seen = watch(stream)
    prompt = module.prompts["image"]
    code.run_with_prompt(stream, tokens, prompt)
    torch.testing.assert_close(seen[0]["prompt"][0], prompt, atol=0, rtol=0)
    inserted = stream.enter(tokens.insert("prompt", prompt, before="image"))
    assert not torch.allclose(inserted["prompt"][0], prompt)


def test_every_constraint_is_an_exact_version():
    lines = (PROJECT / "constraints.txt").read_text().split()
    assert lines
    assert [s for s in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.]+", s)] == []
