"""What the gallery needs to run the examples: their order, options and folder."""

import ast
import tempfile
from pathlib import Path

# From the first model to single questions; others come behind them, by name.
ORDER = [
    "quickstart",
    "automatic",
    "numbers_and_categories",
    "robustness",
    "cross_scenario",
    "grid_search",
    "experts",
    "proxy_tokens",
    "attention",
    "clips",
    "explanation",
    "mora_export",
    "retrieval",
    "continual",
    "serving",
    "serve",
    "read_onnx",
]
# Options that make an example short enough for every build of the site.
OPTIONS = {
    "automatic.py": ["--rows", "160", "--time-limit", "30"],
    "clips.py": ["--rows", "120", "--test-rows", "120", "--epochs", "4"],
    "continual.py": ["--rows", "16", "--epochs", "2"],
    "proxy_tokens.py": ["--rows", "360", "--epochs", "8"],
    "quickstart.py": ["--rows", "480", "--epochs", "3", "--quiet"],
    "retrieval.py": ["--rows", "200", "--epochs", "3"],
    "robustness.py": ["--rows", "240", "--folds", "2", "--quiet"],
}
# Examples write their pictures there; the gallery takes them from the open figures.
OUT = Path(tempfile.gettempdir()) / "robustmm-gallery"


def reset_argv(configuration, script_vars) -> list[str]:
    """Return the words behind an example's name on its command line."""
    file = Path(script_vars["src_file"])
    source = file.read_text()
    # The gallery takes it away, and the parsers of the examples read it.
    script_vars["example_globals"]["__doc__"] = ast.get_docstring(ast.parse(source))
    takes_out = '"--out"' in source
    return [*OPTIONS.get(file.name, []), *(["--out", str(OUT)] if takes_out else [])]


def reading_order(name: str) -> tuple[int, str]:
    """Return the place of an example, by the name of its file."""
    stem = Path(name).stem
    return (ORDER.index(stem) if stem in ORDER else len(ORDER), stem)
