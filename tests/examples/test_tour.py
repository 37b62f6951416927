"""The notebook: committed as it was written, without what came of it."""

import json
import re
from pathlib import Path

import nbformat
import pytest

TOUR = Path(__file__).parents[2] / "examples" / "tour.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(TOUR, as_version=4)


@pytest.fixture
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_a_notebook(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


def test_it_holds_no_outputs_and_no_traces_of_a_run(notebook, code):
    assert code
    assert [cell for cell in code if cell.outputs or cell.execution_count] == []
    assert [cell for cell in notebook.cells if cell.metadata] == []
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_it_needs_no_network(code):
    source = "\n".join(cell.source for cell in code)
    backbones = re.findall(r'Classifier\(\s*"([^"]+)"', source)
    assert backbones
    assert [name for name in backbones if not name.startswith("robustmm/")] == []


def test_all_cells_compile_and_lines_are_short(code):
    for cell in code:
        compile(cell.source, cell.id, "exec")
        assert max(map(len, cell.source.splitlines())) <= 88


def test_it_is_a_page_of_the_documentation():
    docs = TOUR.parents[1] / "docs"
    assert "<generated/tour>\n" in (docs / "getting_started.rst").read_text()
    assert '"tour",\n' in (docs / "conf.py").read_text()
    assert "tour.ipynb" in (docs / "_extensions" / "tour.py").read_text()
    assert json.loads(TOUR.read_text())["nbformat"] == 4
