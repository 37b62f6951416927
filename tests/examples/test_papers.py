"""The pages of the papers and the example that draws them agree."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SOURCE = PROJECT / "examples" / "papers.py"
PAGES = sorted(PROJECT.glob("docs/papers/*.rst"))
COMMAND = re.compile(r"python\s+examples/(\w+)\.py((?:\s+[^\s`:]+)*)")


def items():
    """Return the (paper, item) pairs of the decorators."""
    found = set()
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.FunctionDef):
            for call in node.decorator_list:
                paper, *names = (argument.value for argument in call.args)
                found |= {(paper, name) for name in names}
    return found


def commands(page):
    """Return (example, words) of each command on a page."""
    return [(name, words.split()) for name, words in COMMAND.findall(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_commands_are_of_examples_and_items_that_are_there(page):
    for example, words in commands(page):
        assert (PROJECT / "examples" / f"{example}.py").is_file()
        if example == "papers" and words[:1] != ["--list"]:
            assert tuple(words[:2]) in items()


def test_every_item_is_on_the_page_of_its_paper():
    for paper in ("cmpt", "mora", "mail", "memprompt"):
        page = PROJECT / "docs" / "papers" / f"{paper}.rst"
        given = {tuple(words[:2]) for name, words in commands(page) if name == "papers"}
        # Tables that one function fills share a row of the page, and its command.
        functions = {
            frozenset((node.args[0].value, name.value) for name in node.args[1:])
            for node in ast.walk(ast.parse(SOURCE.read_text()))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "item"
        }
        own = [names for names in functions if next(iter(names))[0] == paper]
        assert [names for names in own if not names & given] == []
