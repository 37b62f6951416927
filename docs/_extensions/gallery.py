"""What the gallery needs to run the examples: their order, options and folder."""

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
    "mora_export",
    "continual",
    "serving",
    "serve",
]
# Options that make an example short enough for every build of the site.
OPTIONS = {
    "continual.py": ["--rows", "24", "--epochs", "2"],
    "quickstart.py": ["--rows", "600", "--epochs", "4"],
}
# Examples write their pictures there; the gallery takes them from the open figures.
OUT = Path(tempfile.gettempdir()) / "robustmm-gallery"


def reset_argv(configuration, script_vars) -> list[str]:
    """Return the words behind an example's name on its command line."""
    file = Path(script_vars["src_file"])
    takes_out = '"--out"' in file.read_text()
    return [*OPTIONS.get(file.name, []), *(["--out", str(OUT)] if takes_out else [])]


def reading_order(name: str) -> tuple[int, str]:
    """Return the place of an example, by the name of its file."""
    stem = Path(name).stem
    return (ORDER.index(stem) if stem in ORDER else len(ORDER), stem)
