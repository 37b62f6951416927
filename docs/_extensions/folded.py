"""Fold the tables of the page of results, which nobody reads as a whole."""

from docutils import nodes

PAGE = "results"


def _raw(html: str) -> nodes.raw:
    return nodes.raw("", html, format="html")


def fold_tables(app, doctree) -> None:
    """Put each table of the page into ``<details>``; its section names it."""
    if app.env.docname != PAGE:
        return
    for table in list(doctree.findall(nodes.table)):
        section = table.parent
        place = section.index(table)
        section.insert(place, _raw("<details><summary>Show the table</summary>"))
        section.insert(place + 2, _raw("</details>"))


def setup(app) -> dict:
    """Fold when the page has been read."""
    app.connect("doctree-read", fold_tables)
    return {"parallel_read_safe": True}
