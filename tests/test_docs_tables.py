"""The tables that the site computes say what the classes do."""

import sys
import zlib
from pathlib import Path

import pytest

import robustmm

EXTENSIONS = Path(__file__).parents[1] / "docs" / "_extensions"


@pytest.fixture(autouse=True)
def extensions(monkeypatch):
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    yield
    for name in ("computed", "measured", "inventories", "gallery"):
        sys.modules.pop(name, None)


def read(table: str) -> list[list[str]]:
    """The cells of a list-table, row by row."""
    rows = []
    for line in table.splitlines()[3:]:
        if line.startswith("   * -"):
            rows.append([])
        if "- " in line[:7] or line.endswith("-"):
            rows[-1].append(line[7:].strip())
    return rows


def test_the_matrix_of_encoders_follows_from_the_streams():
    import computed

    head, *rows = read(computed.encoders())
    answers = {
        (row[0].strip("`"), name.partition("<")[2].strip(">`")): cell
        for row in rows
        for name, cell in zip(head[2:], row[2:], strict=True)
    }
    assert answers["vilt", "robustmm.MAILClassifier"] == "yes"
    assert answers["clip", "robustmm.MAILClassifier"] == "no"
    assert answers["clip", "robustmm.MoRAClassifier"] == "yes"
    assert answers["bert", "robustmm.CMPTClassifier"] == "text side"
    assert answers["dinov2", "robustmm.CMPTClassifier"] == "image side"
    assert answers["vilt", "robustmm.CMPTClassifier"] == "no"


def test_what_a_class_can_do_is_read_off_the_class():
    import computed

    head, *rows = read(computed.capabilities())
    can = {
        row[0].partition(".")[2].strip("`"): dict(zip(head, row, strict=True))
        for row in rows
    }
    assert can["DeLoClassifier"]["Learns in stages"] == "yes"
    assert can["MAILClassifier"]["Learns in stages"] == "no"
    assert can["MoRAClassifier"]["Merges and exports"] == "yes"
    assert can["MAILClassifier"]["Shows its inside"] == "yes"
    assert can["MAILClassifier"]["Encoders"] == "ViLT"
    assert {c.__name__ for c in computed.public_classifiers()} < set(can)


def test_own_parameters_stand_beside_their_defaults_and_the_paper_s():
    import computed

    head, *rows = read(computed.parameters(robustmm.MAILClassifier))
    table = {row[0].strip("`"): row for row in rows}
    assert head == ["Parameter", "Default", "``PAPER``"]
    assert table["rank"][1] == "``4``"
    assert "image_root" not in table
    assert table["lr"][2] == f"``{robustmm.MAILClassifier.PAPER['lr']!r}``"


def test_costs_are_means_over_the_seeds():
    import measured

    table = measured.measured()
    seeds = [
        run["scores"]["all"] for run in measured.read_runs() if run["method"] == "MAIL"
    ]
    assert len(seeds) > 1
    assert table.loc["MAIL", "score"] == pytest.approx(sum(seeds) / len(seeds))
    assert table["score"].is_monotonic_decreasing
    # A class without a line there has no costs to show on its page.
    classes = {c.__name__ for c in measured.public_classifiers()}
    assert set(measured.RUNS_OF) == classes


def test_inventories_name_pages_without_a_network():
    import inventories

    mapping = inventories.write_inventories()
    site, file = mapping["sklearn"]
    body = Path(file).read_bytes().split(b"zlib.\n", 1)[1]
    lines = zlib.decompress(body).decode().splitlines()
    page = "modules/generated/sklearn.model_selection.GridSearchCV.html"
    name = "sklearn.model_selection.GridSearchCV"
    assert f"{name} py:class 1 {page}#{name} -" in lines
    assert site == "https://scikit-learn.org/stable/"


def test_the_gallery_knows_the_examples_that_it_shortens_and_orders():
    import gallery

    examples = {file.name for file in Path(EXTENSIONS, "../../examples").glob("*.py")}
    assert set(gallery.OPTIONS) <= examples
    assert {f"{name}.py" for name in gallery.ORDER} <= examples
