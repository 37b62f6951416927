"""Sphinx configuration; the table of methods is computed here, from docstrings."""

import inspect
import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
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
    "myst_nb",  # for the tour, and for the results, which a script writes in Markdown
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "jupyter_execute", "generated/method_table.rst"]
nb_execution_mode = "off"  # `run_tour` has run it by then
html_static_path = ["_static"]
html_css_files = ["tables.css"]
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
TOUR = Path(__file__).parents[1] / "examples" / "tour.ipynb"


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


def run_tour(app) -> None:
    """Run the notebook, which has no outputs, and put it where Sphinx finds pages."""
    # Bars are texts here: as widgets they would need scripts from elsewhere.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    notebook = nbformat.read(TOUR, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            coalesce_streams=True,  # of each bar only the last state
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    TABLE.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, TABLE.parent / TOUR.name)


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


def check_tour(app, exception) -> None:
    """Fail the build if the tour's bars or tables would not look as they should."""
    if exception is not None or app.builder.name != "html":
        return
    page = Path(app.outdir, "generated", "tour.html").read_text()
    wanted = ["100%|██████████|", 'class="dataframe"', "data:image/png"]
    unwanted = ["IProgress", "jupyter.widget", "Traceback", "\r"]
    wrong = [text for text in wanted if text not in page]
    wrong += [text for text in unwanted if text in page]
    if wrong:
        raise ExtensionError(f"The tour's page lacks, or has, {wrong}.")


def setup(app) -> None:
    """Connect the functions above to the build."""
    app.connect("builder-inited", write_method_table)
    app.connect("builder-inited", run_tour)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("build-finished", check_links)
    app.connect("build-finished", check_tour)
