"""What the page on scale shows: each script is run as it stands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.scale

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "scale.rst"
SCRIPTS = {
    "search_dask": (["--rows", "24"], "rank"),
    "search_ray": (["--rows", "24"], "rank"),
    "predict_dask": (["{}/new", "--rows", "40"], "40 rows in 4 files"),
    "predict_files": ([], "100% as predict says"),
    "predict_spark": (["--rows", "40"], "prediction"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_of_the_page_run(name, tmp_path):
    if "spark" in name and shutil.which("java") is None:
        pytest.skip("Spark needs a Java, and there is none on the PATH")
    arguments, expected = SCRIPTS[name]
    arguments = [argument.format(tmp_path) for argument in arguments]
    script = PROJECT / "examples" / "scale" / f"{name}.py"
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_every_recipe_is_one_of_them():
    text = PAGE.read_text()
    shown = re.findall(r"literalinclude:: \.\./examples/scale/(\w+)\.py", text)
    assert set(shown) == set(SCRIPTS)
    assert {p.stem for p in (PROJECT / "examples" / "scale").glob("*.py")} == set(shown)
    for match in re.finditer(r"(\w+)\.py\n((?:   :.*\n)+)", text):
        script = (PROJECT / "examples" / "scale" / f"{match[1]}.py").read_text()
        for mark in re.findall(r":(?:start-after|end-before): (.*)", match[2]):
            assert mark in script
