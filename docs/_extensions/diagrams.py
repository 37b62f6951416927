"""Diagrams in SVG that take the colours of the page, in its light and its dark mode.

``.. diagram:: NAME`` shows what the function of that name in ``pictures.py`` draws. The
picture is part of the page, not a file beside it, or it could not see which mode is on.
"""

from dataclasses import dataclass, field
from html import escape

import pictures
from docutils import nodes
from docutils.parsers.rst import Directive
from measured import RUNS
from sphinx.errors import ExtensionError

WIDTH = 480
WORDS = {"cell": "input", "plain": "computed", "idle": "not used here"}
LINE = 15  # from one line of text to the next
ARROW = (
    '<marker id="{id}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
    'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" class="tip"/></marker>'
)


@dataclass
class Canvas:
    """What has been drawn so far; coordinates are those of a page 480 wide."""

    name: str
    height: int = 0
    parts: list[str] = field(default_factory=list)

    def box(self, x, y, w, h, text="", kind="frozen") -> None:
        """Draw a box of a kind: frozen, trained, cell, missing or plain."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="5" class="{kind}"/>'
        )
        self.height = max(self.height, y + h)
        self.text(x + w / 2, y + h / 2, text)

    def text(self, x, y, text, anchor="middle", kind="") -> None:
        """Write lines of text, centred about a height."""
        lines = text.splitlines()
        top = y - LINE * (len(lines) - 1) / 2 + 4.5
        for i, line in enumerate(lines):
            self.parts.append(
                f'<text x="{x}" y="{top + LINE * i}" text-anchor="{anchor}" '
                f'class="{kind}">{escape(line)}</text>'
            )
        self.height = max(self.height, y + LINE * len(lines) / 2)

    def arrow(self, *points, kind="") -> None:
        """Draw a line through points (x, y), with a tip at the last one."""
        through = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(
            f'<polyline points="{through}" class="line {kind}" '
            f'marker-end="url(#tip-{self.name})"/>'
        )

    def legend(self, *kinds) -> None:
        """Say below the picture what the colours mean."""
        y, x = self.height + 14, 4
        for kind in kinds:
            self.parts.append(
                f'<rect x="{x}" y="{y}" width="16" height="12" rx="3" class="{kind}"/>'
            )
            words = WORDS.get(kind, kind)
            self.text(x + 22, y + 6, words, "start", "small")
            x += 44 + 7 * len(words)
        self.height = y + 14

    def svg(self, alt: str) -> str:
        """Return the picture."""
        marker = ARROW.format(id=f"tip-{self.name}")
        return (
            f'<svg class="diagram" viewBox="0 0 {WIDTH} {self.height + 4:.0f}" '
            f'role="img" aria-label="{escape(alt)}"><defs>{marker}</defs>'
            + "".join(self.parts)
            + "</svg>"
        )


class Diagram(Directive):
    """Show a picture of ``pictures.py``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        draw = getattr(pictures, name, None)
        if draw is None:
            raise ExtensionError(f"pictures.py must draw {name!r}, and does not.")
        # Or the page would keep a picture that is drawn otherwise by now.
        for file in (pictures.__file__, str(RUNS)):
            self.state.document.settings.record_dependencies.add(file)
        canvas = Canvas(name.replace("_", "-"))
        draw(canvas)
        alt = " ".join(draw.__doc__.split())
        html = f'<figure class="diagram">{canvas.svg(alt)}</figure>'
        return [nodes.raw("", html, format="html")]


def setup(app) -> dict:
    """Register the directive."""
    app.add_directive("diagram", Diagram)
    return {"parallel_read_safe": True}
