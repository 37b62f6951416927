"""Every public name is documented, and every method has its test and its page."""

import inspect
import re
from operator import attrgetter
from pathlib import Path

import pytest

import robustmm
from robustmm import adapters, backbones, checks, datasets, distributed, testing

PROJECT = Path(__file__).parents[1]
FOR_METHODS = ["Backbone", "Stream", "Tokens", "FrozenPrefix", "encode_streams"]
METHODS = sorted((PROJECT / "robustmm" / "methods").glob("[!_]*.py"))


def public_objects() -> dict:
    """Return what the package, its ``datasets`` and its ``testing`` export."""
    found = {
        name: thing
        for name, thing in vars(robustmm).items()
        if not name.startswith("_") and not inspect.ismodule(thing)
    }
    for name, thing in vars(datasets).items():
        own = getattr(thing, "__module__", "").startswith(datasets.__name__)
        if own and not name.startswith("_"):
            found[f"datasets.{name}"] = thing
    for name in ("predict", "PartitionError"):
        found[f"distributed.{name}"] = getattr(distributed, name)
    checks = inspect.getmembers(testing, inspect.isfunction)
    return found | {f"testing.{name}": function for name, function in checks}


PUBLIC = public_objects()
CLASSIFIERS = {
    name: thing
    for name, thing in PUBLIC.items()
    if inspect.isclass(thing) and issubclass(thing, robustmm.BaseMultimodalClassifier)
}


def documented(docstring: str, section: str) -> set[str]:
    """Return the names that a numpydoc section lists."""
    pattern = rf"^{section}\n-{{{len(section)}}}\n(.*?)(?=^\S[^\n]*\n-{{3,}}$|\Z)"
    match = re.search(pattern, docstring, re.MULTILINE | re.DOTALL)
    lines = match.group(1).splitlines() if match else []
    heads = [line.split(" : ")[0] for line in lines if re.match(r"\S", line)]
    return {name.strip().lstrip("*") for head in heads for name in head.split(",")}


def accepted(thing) -> set[str]:
    """Return the names of the parameters of a class or function."""
    return set(inspect.signature(thing).parameters)


def listed() -> list[str]:
    """Return what the reference lists, by the path from ``robustmm``."""
    found, module = [], ""
    for line in (PROJECT / "docs" / "api.rst").read_text().splitlines():
        if directive := re.match(r"\.\. currentmodule:: robustmm\.?(\S*)", line):
            module = directive[1]
        if name := re.fullmatch(r"   (\w[\w.]*)", line):
            found.append(f"{module}.{name[1]}".strip("."))
    return found


REFERENCE = listed()


def test_there_is_something_to_check():
    assert {"MAILClassifier", "checks.check_names", "adapters.Router"} <= set(REFERENCE)
    assert {"CMPTClassifier", "load_backbone", "datasets.make_scenes"} <= set(PUBLIC)
    assert set(CLASSIFIERS) > {"MultimodalClassifier"}
    assert METHODS


def test_the_section_reader_reads_names_and_stops_at_the_next_section():
    text = "One.\n\nParameters\n----------\na, b : int\n    Two.\n*c\n    Of c.\n\n"
    text += "Returns\n-------\nd : int\n    Three.\n"
    assert documented(text, "Parameters") == {"a", "b", "c"}
    assert documented(text, "Returns") == {"d"}
    assert documented(text, "Raises") == set()


@pytest.mark.parametrize("name", PUBLIC)
def test_the_reference_lists_the_name(name):
    reference = (PROJECT / "docs" / "api.rst").read_text()
    assert re.search(rf"^   {re.escape(name)}$", reference, re.MULTILINE)


def exported(module) -> list[str]:
    """Return the classes and functions that a package re-exports."""
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and (inspect.isclass(thing) or callable(thing))
    ]


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (adapters, exported(adapters)),
        (checks, [n for n in exported(checks) if n.startswith("check_")]),
        (backbones, FOR_METHODS),
    ],
    ids=["adapters", "checks", "backbones"],
)
def test_the_reference_lists_what_methods_are_made_of(module, names):
    reference = (PROJECT / "docs" / "api.rst").read_text()
    listed = set(re.findall(r"^   (?:checks\.)?(\w+)$", reference, re.MULTILINE))
    assert names
    assert [n for n in names if n not in listed] == []
    assert [n for n in names if not inspect.getdoc(getattr(module, n))] == []


@pytest.mark.parametrize("name", REFERENCE)
def test_what_the_reference_lists_has_an_example(name):
    thing = attrgetter(name)(robustmm)
    assert re.search(
        r"^Examples\n-{8}\n(.|\n)*>>> ", inspect.getdoc(thing), re.MULTILINE
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_parameters_are_documented_and_nothing_else_is(name):
    thing = PUBLIC[name]
    assert documented(inspect.getdoc(thing), "Parameters") == accepted(thing)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_docstring_starts_with_one_sentence(name):
    summary, *rest = inspect.getdoc(PUBLIC[name]).splitlines()
    assert re.sub(r"\s*\[\d+\]_", "", summary).endswith(".")
    assert not rest or rest[0] == ""


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_documents_its_fitted_attributes(name):
    attributes = documented(inspect.getdoc(CLASSIFIERS[name]), "Attributes")
    assert {"classes_", "net_"} <= attributes
    assert all(attribute.endswith("_") for attribute in attributes)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_public_methods_of_a_classifier_have_docstrings(name):
    own = [m for m in vars(CLASSIFIERS[name]) if not m.startswith("_")]
    methods = [getattr(CLASSIFIERS[name], m) for m in own]
    assert all(inspect.getdoc(m) for m in methods if callable(m))


@pytest.mark.parametrize("file", METHODS, ids=lambda f: f.stem)
def test_a_method_has_a_test_file_and_a_page(file):
    assert (PROJECT / "tests" / "methods" / f"test_{file.stem}.py").is_file()
    assert (PROJECT / "docs" / "methods" / f"{file.stem}.rst").is_file()
    index = (PROJECT / "docs" / "methods" / "index.rst").read_text()
    assert re.search(rf"^   {file.stem}$", index, re.MULTILINE)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_html_of_a_classifier_links_to_its_page(name):
    thing = CLASSIFIERS[name]
    if inspect.isabstract(thing):
        thing = type(
            name,
            (thing,),
            {"_build_module": None, "_train": None, "__module__": "robustmm"},
        )
    # Sphinx's autosummary names its pages so; its build fails if one is not there.
    folder = "https://robustmm.readthedocs.io/en/latest/generated"
    link = f"{folder}/robustmm.{name}.html"
    assert thing()._get_doc_link() == link
    assert f'href="{link}"' in thing()._repr_html_()


def test_the_html_of_a_foreign_classifier_has_no_link():
    foreign = type("Foreign", (robustmm.CMPTClassifier,), {"__module__": "elsewhere"})
    assert foreign()._get_doc_link() == ""
