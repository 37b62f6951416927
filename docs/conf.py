"""Sphinx configuration; the table of methods is computed here, from docstrings."""

import inspect
import re
from pathlib import Path

from sphinx.errors import ExtensionError

import robustmm

project = "robustmm"
author = "the robustmm developers"
copyright = f"2026, {author}"
version = release = robustmm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",  # the page of results is written by a script, in Markdown
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "generated/method_table.rst"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Image+text classifiers for tables with holes",
    "page_width": "1080px",
}

autosummary_generate = True
autodoc_typehints = "none"  # the numpydoc sections carry the types
numpydoc_show_class_members = False  # the class template lists them
# A reference to one of our own names must resolve; other projects' pages are not read,
# so that the documentation builds without a network.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(numpy|pandas|PIL|sklearn|skorch|torch)\..*")]

TABLE = Path(__file__).parent / "generated" / "method_table.rst"


def public_classifiers() -> list[type]:
    """Return the classes of the public namespace that fit and predict, by name."""
    classes = [c for c in vars(robustmm).values() if inspect.isclass(c)]
    base = robustmm.BaseMultimodalClassifier
    found = [c for c in classes if issubclass(c, base) and not inspect.isabstract(c)]
    return sorted(found, key=lambda c: c.__name__)


def describe(classifier: type) -> list[str]:
    """Return a row: the class, its docstring's first line, its default backbones."""
    summary = inspect.getdoc(classifier).splitlines()[0]
    parameters = inspect.signature(classifier).parameters.values()
    backbones = [p.default for p in parameters if p.name.endswith("backbone")]
    return [
        f":class:`robustmm.{classifier.__name__}`",
        re.sub(r"\s*\[\d+\]_", "", summary),
        ", ".join(f"``{name}``" for name in backbones),
    ]


def write_method_table(app) -> None:
    """Write the table that ``methods/index.rst`` includes."""
    rows = [["Class", "What it is", "Backbones by default"]]
    rows += [describe(classifier) for classifier in public_classifiers()]
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 25 45 30", ""]
    for row in rows:
        lines += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n")


def skip_member(app, what, name, obj, skip, options) -> bool | None:
    """Leave out what scikit-learn generates; its text refers to its own pages."""
    names = r"set_\w+_request|get_metadata_routing|set_output"
    generated = re.fullmatch(names, name)
    return True if generated else None


def missing_pages(folder) -> list[str]:
    """Return the links from estimators' HTML to pages that are not in ``folder``."""
    links = [classifier()._get_doc_link() for classifier in public_classifiers()]
    pages = {link: Path(folder, link.split("/latest/")[1]) for link in links}
    return [link for link, page in pages.items() if not page.is_file()]


def check_links(app, exception) -> None:
    """Fail the build if the "?" of an estimator's HTML would lead nowhere."""
    if exception is None and app.builder.name == "html" and missing_pages(app.outdir):
        raise ExtensionError(f"Pages must be built: {missing_pages(app.outdir)}.")


def setup(app) -> None:
    """Connect the functions above to the build."""
    app.connect("builder-inited", write_method_table)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("build-finished", check_links)
