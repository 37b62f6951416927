"""How the reference is read from docstrings: short signatures, a row per parameter."""

import re

from computed import public_classifiers
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.errors import ExtensionError
from sphinx.ext.autosummary import autosummary_table

GENERATED = re.compile(r"set_\w+_request|get_metadata_routing|set_output")
DEFAULT = re.compile(r"(?P<kind>.*?),? default=(?P<value>.*)", re.DOTALL)
# More parameters than these are read below the signature, each with its default.
LONGEST = 4


def skip_member(app, what, name, obj, skip, options) -> bool | None:
    """Leave out what scikit-learn generates; its text refers to its own pages."""
    return True if GENERATED.fullmatch(name) else None


def shorten_signature(app, what, name, obj, options, signature, returns):
    """Write an ellipsis for the parameters of a class that has many."""
    if what == "class" and signature and signature.count(",") >= LONGEST:
        return "(…)", returns
    return None


def separate_defaults(app, doctree) -> None:
    """Give the default of each parameter a place of its own beside the type."""
    for kind in list(doctree.findall(nodes.classifier)):
        match = DEFAULT.fullmatch(kind.astext())
        if match:
            value = nodes.classifier("", classes=["default"])
            value += nodes.Text(match["value"])
            kind.parent.insert(kind.parent.index(kind) + 1, value)
            kind.children = [nodes.Text(match["kind"])]
            kind.children[0].parent = kind


def drop_citations(app, doctree) -> None:
    """Leave marks of references out of lists of names: their texts are elsewhere."""
    for table in doctree.findall(autosummary_table):
        for mark in list(table.findall(pending_xref)):
            if mark.get("refdomain") == "citation":
                _without_space(mark.parent, mark.parent.index(mark))
                mark.parent.remove(mark)


def _without_space(paragraph, place: int) -> None:
    """Close the gap that a mark leaves before a full stop."""
    before = paragraph[place - 1] if place else None
    if isinstance(before, nodes.Text):
        paragraph.replace(before, nodes.Text(before.rstrip()))


def missing_pages(folder) -> list[str]:
    """Return the links from estimators' HTML to pages that are not in ``folder``."""
    links = [classifier()._get_doc_link() for classifier in public_classifiers()]
    pages = {link: folder / link.split("/latest/")[1] for link in links}
    return [link for link, page in pages.items() if not page.is_file()]


def check_links(app, exception) -> None:
    """Fail the build if the "?" of an estimator's HTML would lead nowhere."""
    if exception is None and app.builder.name == "html" and missing_pages(app.outdir):
        raise ExtensionError(f"Pages must be built: {missing_pages(app.outdir)}.")


def setup(app) -> dict:
    """Connect the functions above to the build."""
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("doctree-read", separate_defaults)
    app.connect("doctree-read", drop_citations)
    app.connect("build-finished", check_links)
    return {"parallel_read_safe": True}
