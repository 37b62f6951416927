"""Formulas as MathML, which browsers draw themselves: no script and no network."""

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)


def _markup(node, *, block: bool) -> str:
    """Return the formula of a node, with a warning if it cannot be converted."""
    try:
        return tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        logger.warning("%s in the formula %r", error, node.astext(), location=node)
        return ""


def visit_inline(translator, node) -> None:
    """Write a formula within a sentence."""
    translator.body.append(_markup(node, block=False))
    raise SkipNode


def visit_block(translator, node) -> None:
    """Write a displayed formula, which scrolls inside itself where it is too wide."""
    formula = _markup(node, block=True)
    translator.body.append(f'<div class="formula" tabindex="0">{formula}</div>')
    raise SkipNode


def setup(app) -> dict:
    """Register the renderer, for ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
