"""Who may import whom, read from the source files."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "robustmm"
FILES = sorted(ROOT.rglob("*.py"))

LEVEL_0 = {
    "_version",
    "annotations",
    "checks",
    "locks",
    "parameters",
    "missingness",
    "datasets",
    "data.cells",
    "data.frame",
    "data.lazy",
    "data.tables",
}
# Labels stand apart in two ways: what one is, is scikit-learn's business, not torch's,
# and a method that keeps labels of its own (of tasks) may import them.
LABELS = {"data.targets", "data.task_labels"}
LEVEL_1 = {"data", "backbones", "adapters", "storage"} | LABELS
# Numbers in, numbers out: a method that is no training may solve it, too.
SOLVER = {"training.probe"}
BELOW_BASE = LEVEL_0 | LEVEL_1 | {"training"} | SOLVER
CLASSIFIERS = {"table", "base", "trained", "incremental"}
CLASSIFIERS |= {"stagewise", "streaming", "told", "clips"}
BELOW_LEAVES = BELOW_BASE | CLASSIFIERS | {"methods"}
# Leaves that stand on one another, each on those before it; nobody below imports one.
SCORES, ENSEMBLE = {"evaluation"}, {"evaluation", "ensemble"}
# What each unit may import; "package" stands for robustmm/__init__.py, which nobody
# imports.
ALLOWED = {
    **dict.fromkeys(LEVEL_0, LEVEL_0),
    **{unit: LEVEL_0 | {unit} for unit in LEVEL_1},
    **dict.fromkeys(LABELS, LEVEL_0 | LABELS),
    "data": LEVEL_0 | {"data"} | LABELS,
    **dict.fromkeys(SOLVER, LEVEL_0),
    "training": BELOW_BASE,
    "table": BELOW_BASE,
    "clips": BELOW_BASE | {"table"},
    "base": BELOW_BASE | {"table"},
    "trained": BELOW_BASE | {"base"},
    "incremental": BELOW_BASE | {"base", "trained"},
    "stagewise": BELOW_BASE | {"base", "trained", "incremental"},
    "told": BELOW_BASE | {"base", "trained", "incremental"},
    "streaming": BELOW_BASE | {"base"},
    "methods": LEVEL_0 | LABELS | SOLVER | CLASSIFIERS | {"adapters", "backbones"},
    "evaluation": BELOW_LEAVES | SCORES,
    "ensemble": BELOW_LEAVES | ENSEMBLE,
    "display": BELOW_LEAVES | ENSEMBLE | {"display"},
    "persistence": BELOW_LEAVES | ENSEMBLE | {"persistence"},
    "testing": BELOW_LEAVES | ENSEMBLE | {"testing"},
    "distributed": BELOW_LEAVES | {"persistence", "distributed"},
    "__main__": {"commands"},
}
# The command line uses the public names, as any program does.
ALLOWED["commands"] = {*BELOW_LEAVES, "commands", "package"}
ALLOWED["package"] = set(ALLOWED)
PLAIN = sys.stdlib_module_names | {"numpy", "pandas", "PIL"}
TOO_HIGH_FOR_LEVEL_1 = {"skorch", "sklearn"}


def unit_of(path: tuple[str, ...]) -> str:
    """Return the unit that the dotted name below ``robustmm`` belongs to."""
    for unit in (".".join(path[:2]), path[0] if path else ""):
        if unit in ALLOWED:
            return unit
    return "package"  # a name that __init__.py exports


def imports(source: str, path: tuple[str, ...], is_package: bool = False):
    """Yield each import as (dotted origin, name); the name of ``import x`` is None."""
    folder = path if is_package else path[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split(".")), None
        elif isinstance(node, ast.ImportFrom):
            origin = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                above = folder[: len(folder) - node.level + 1]
                origin = ("robustmm", *above, *origin)
            for alias in node.names:
                yield origin, alias.name


def violations(source: str, path: tuple[str, ...], is_package: bool = False):
    """Return a sentence for each import that the architecture forbids."""
    unit = unit_of(path) if path else "package"
    found = []
    for origin, name in imports(source, path, is_package):
        if origin[0] != "robustmm":
            if not _may_import_outside(unit, origin[0]):
                found.append(f"{unit} imports {origin[0]}")
            continue
        target = unit_of((*origin[1:], name or "")[:2])
        if target not in ALLOWED[unit]:
            found.append(f"{unit} imports {target}")
        if name and _is_private(name) and len(origin) > 1:
            found.append(f"{unit} imports the private {name}")
    return found


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _may_import_outside(unit: str, library: str) -> bool:
    if unit in LEVEL_0:
        return library in PLAIN
    if unit in LABELS:
        return library in PLAIN | {"scipy", "sklearn"}
    return not (unit in LEVEL_1 and library in TOO_HIGH_FOR_LEVEL_1)


def _dotted(file: Path) -> tuple[str, ...]:
    path = file.relative_to(ROOT).with_suffix("").parts
    return path[:-1] if path[-1] == "__init__" else path


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_follow_the_levels(file):
    is_package = file.name == "__init__.py"
    assert violations(file.read_text(), _dotted(file), is_package) == []


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_file_has_a_place_in_the_architecture(file):
    path = _dotted(file)
    assert path == () or unit_of(path) != "package"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("missingness", "import torch"),
        ("missingness", "from .data import Rows"),
        ("datasets", "from sklearn.utils import check_random_state"),
        ("data.frame", "from .preprocess import decode_image"),
        ("data.frame", "from . import preprocess"),
        ("data.dataset", "from ..backbones import Backbone"),
        ("data.dataset", "from skorch.dataset import Dataset"),
        ("backbones.vilt", "from ..data import frame, ImageTransform"),
        ("backbones.vilt", "import robustmm.adapters.lora"),
        ("adapters.lora", "from ..backbones.tokens import Tokens"),
        ("adapters.lora", "from ..base import MultimodalClassifier"),
        ("training.net", "from ..base import MultimodalClassifier"),
        ("training.probe", "from .net import Net"),
        ("storage.values", "from ..data import Rows"),
        ("data.dataset", "from ..storage.files import write_bytes"),
        ("data.targets", "from skorch.helper import predefined_split"),
        ("data.targets", "from .dataset import MultimodalDataset"),
        ("data.task_labels", "import torch"),
        ("parameters", "import sklearn"),
        ("base", "from .trained import MultimodalClassifier"),
        ("trained", "from .incremental import IncrementalClassifier"),
        ("base", "from .methods.cmpt import CMPTClassifier"),
        ("base", "from . import CMPTClassifier"),
        ("base", "import robustmm"),
        ("base", "def f():\n    from .persistence import save"),
        ("methods.mail", "from .cmpt import CMPTModule"),
        ("methods.mail", "from . import cmpt"),
        ("methods.mail", "from robustmm.methods.cmpt import CMPTModule"),
        ("methods.mail", "from ..training.net import Net"),
        ("methods.mail", "from ..data import Rows"),
        ("methods.mail", "from ..adapters.lora import _scale"),
        ("methods.mail", "from ..evaluation import score_table"),
        ("methods.mail", "from ..ensemble import AutoMultimodalClassifier"),
        ("table", "from .base import BaseMultimodalClassifier"),
        ("evaluation", "from .ensemble import EnsembleSelection"),
        ("ensemble", "from .persistence import save"),
        ("evaluation", "from .display import MissingRateCurveDisplay"),
        ("persistence", "from .testing import check_estimator"),
        ("base", "from .commands import main"),
        ("evaluation", "from .distributed import predict"),
        ("persistence", "from .distributed import predict"),
        ("evaluation", "from .commands.tables import read_table"),
        ("commands.fit", "from ..testing import check_estimator"),
        ("__main__", "from .base import BaseMultimodalClassifier"),
    ],
)
def test_a_violation_is_found(path, source):
    assert violations(source, tuple(path.split(".")))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("missingness", "from .data.frame import read_rows\nimport pandas as pd"),
        ("data.dataset", "from .frame import Rows\nfrom . import preprocess"),
        ("data.dataset", "from ..checks import check_choice\nimport torch"),
        ("training.net", "from .device import resolve_device"),
        ("base", "from .training.net import Net\nfrom .data import Rows"),
        ("training.head", "from .probe import solve_probe"),
        ("methods.linear_probe", "from ..training.probe import solve_probe"),
        ("base", "from ._version import __version__"),
        ("trained", "from .base import BaseMultimodalClassifier"),
        ("data.targets", "from sklearn.utils import column_or_1d"),
        ("data.task_labels", "from .targets import Targets\nimport sklearn"),
        ("incremental", "from .trained import MultimodalClassifier"),
        ("methods.delo", "from ..data.targets import Targets"),
        ("methods.delo", "from ..incremental import IncrementalClassifier"),
        ("methods.mail", "from ..base import MultimodalClassifier\nimport torch"),
        ("methods.mail", "from ..adapters import LoRALinear"),
        ("methods.mail", "from ..checks import check_number"),
        ("display", "from .evaluation import score_table"),
        ("ensemble", "from .methods.cmpt import CMPTClassifier"),
        ("ensemble", "from ..evaluation import score_by_pattern"),
        ("base", "from .table import TableClassifier"),
        ("testing", "from .methods.cmpt import CMPTClassifier"),
        ("commands.fit", "import robustmm\nfrom .tables import read_table"),
        ("commands.models", "from ..data.frame import read_rows"),
        ("__main__", "from .commands import main"),
    ],
)
def test_a_proper_import_is_let_through(path, source):
    assert violations(source, tuple(path.split("."))) == []


def test_the_namespace_imports_from_everywhere():
    source = "from .evaluation import f as f\nfrom .methods.cmpt import C as C"
    assert violations(source, (), is_package=True) == []


def test_a_file_without_a_place_is_found():
    assert unit_of(("utils",)) == "package"


MODULES = [f for f in FILES if f.name not in ("__init__.py", "_version.py")]


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(ROOT)))
def test_every_module_has_its_tests_where_it_stands(file):
    name = f"test_{file.stem.lstrip('_')}.py"
    mirror = Path(__file__).parent / file.relative_to(ROOT).parent / name
    assert "def test_" in mirror.read_text()
