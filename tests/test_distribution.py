"""What the distribution says of itself: what it needs, and which version it is."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

import robustmm

PROJECT = Path(__file__).parents[1]
FILES = sorted(Path(robustmm.__file__).parent.rglob("*.py"))
NAMES = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "huggingface_hub": "huggingface-hub",
}
SETUP = configparser.ConfigParser()
SETUP.read(PROJECT / "setup.cfg")


def bounds(text: str) -> dict[str, str]:
    """Return name and lower bound of each line of a list of requirements."""
    lines = [line.replace(" ", "") for line in text.split("\n") if line.strip()]
    own = [line for line in lines if not line.startswith("robustmm[")]
    return dict(
        re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", s).groups() for s in own
    )


REQUIRED = bounds(SETUP["options"]["install_requires"])
EXTRAS = {k: bounds(v) for k, v in SETUP["options.extras_require"].items()}
OPTIONAL = {name for extra in EXTRAS.values() for name in extra}


def imported(source: str) -> tuple[set[str], set[str]]:
    """Return the packages that importing a module needs, and all that it names."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        node.always = getattr(node, "always", True)
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        lazy |= isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.iter_child_nodes(node):
            child.always = node.always and not lazy
    found = [(name, node.always) for node in ast.walk(tree) for name in _names(node)]
    return {name for name, always in found if always}, {name for name, _ in found}


def _names(node: ast.AST) -> list[str]:
    """Return the distributions that an import is from; those of Python are none."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module]
    tops = {name.partition(".")[0] for name in names}
    return [NAMES.get(top, top) for top in tops - sys.stdlib_module_names]


def of_package() -> tuple[set[str], set[str]]:
    """Return the same of the whole package."""
    found = [imported(file.read_text()) for file in FILES]
    always, named = (set().union(*sets) for sets in zip(*found, strict=True))
    return always - {"robustmm"}, named - {"robustmm"}


def test_the_reader_of_imports_sees_what_is_lazy():
    source = """
import os, numpy.linalg
from PIL import Image
from . import own
if TYPE_CHECKING:
    import matplotlib
def draw():
    from scipy.special import expit
class A:
    import tqdm
"""
    always, named = imported(source)
    assert always == {"numpy", "pillow", "tqdm"}
    assert named == always | {"matplotlib", "scipy"}


def test_every_import_is_declared():
    always, named = of_package()
    assert always <= set(REQUIRED)
    assert named <= set(REQUIRED) | OPTIONAL


def test_everything_required_is_imported():
    assert set(REQUIRED) - of_package()[1] == set()


def test_every_requirement_has_a_pin_that_its_bound_allows():
    lines = (PROJECT / "constraints.txt").read_text().split()
    pins = dict(line.split("==") for line in lines)
    for name, bound in {
        **REQUIRED,
        **{k: v for e in EXTRAS.values() for k, v in e.items()},
    }.items():
        assert numbers(pins[name]) >= numbers(bound), name


def numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def test_the_version_has_a_dated_section_in_the_changelog():
    text = (PROJECT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## \[([\d.]+)\] - \d{4}-\d{2}-\d{2}$", text, re.MULTILINE)
    assert robustmm.__version__ == sections[0]


def test_the_package_says_that_it_is_typed():
    assert (Path(robustmm.__file__).parent / "py.typed").is_file()
    assert "py.typed" in SETUP["options.package_data"]["robustmm"]


@pytest.mark.slow
@pytest.mark.parametrize("absent", ["matplotlib", "pytest"])
def test_what_is_optional_may_be_absent(absent):
    code = f"import sys; sys.modules[{absent!r}] = None; import robustmm.testing"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
