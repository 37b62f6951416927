"""What type checkers say of a user's program, line by line."""

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import robustmm
from robustmm.annotations import TableLike

PROJECT = Path(__file__).parents[1]
PROGRAM = Path(__file__).parent / "typed" / "user.py"


def marked(checker: str) -> list[int]:
    """Return the numbers of the lines that a checker must find an error in."""
    found = []
    for number, line in enumerate(PROGRAM.read_text().splitlines(), start=1):
        mark = re.search(r"  # wrong(?:: (\w+))?$", line)
        if mark and mark[1] in (None, checker):
            found.append(number)
    return found


def answer(*command: str, status: tuple[int, ...] = (0, 1)) -> str:
    """Return what a checker prints of the program."""
    if importlib.util.find_spec(command[0]) is None:
        pytest.skip(f'{command[0]} is not installed: pip install "robustmm[typing]"')
    done = subprocess.run(
        [sys.executable, "-m", *command, str(PROGRAM)],
        cwd=PROJECT,
        env=os.environ | {"MYPYPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in status, done.stdout + done.stderr
    return done.stdout


def test_the_marks_are_read():
    assert set(marked("mypy")) < set(marked("pyright"))
    assert len(marked("mypy")) > 8


def test_pyright_finds_what_is_wrong_and_nothing_else():
    python = ("--pythonpath", sys.executable)
    found = json.loads(answer("pyright", "--outputjson", *python))
    errors = [e for e in found["generalDiagnostics"] if e["severity"] == "error"]
    lines = {e["range"]["start"]["line"] + 1: e["message"] for e in errors}
    assert sorted(lines) == marked("pyright"), lines


def test_mypy_finds_what_is_wrong_and_nothing_else(tmp_path):
    # Of the program alone: what is imported is read as it is from an installed package.
    quiet = ("--follow-imports=silent", "--ignore-missing-imports")
    text = answer("mypy", *quiet, f"--cache-dir={tmp_path}", "--no-error-summary")
    lines = {int(n): m for n, m in re.findall(r"user\.py:(\d+): error: (.*)", text)}
    assert sorted(lines) == marked("mypy"), lines


WITH_OVERLOADS = [
    robustmm.compare_methods,
    robustmm.continual_matrix,
    robustmm.cross_scenario_matrix,
    robustmm.drop_modalities,
]


@pytest.mark.parametrize("function", WITH_OVERLOADS, ids=lambda f: f.__name__)
def test_overloads_take_what_the_function_takes(function):
    overloads = typing.get_overloads(function)
    assert len(overloads) == 2
    for signature in map(inspect.signature, overloads):
        own = inspect.signature(function).parameters
        assert set(signature.parameters) == set(own)
        for name, parameter in signature.parameters.items():
            if not name.startswith("return_"):
                assert parameter == own[name]


def test_functions_that_return_one_of_two_types_have_overloads():
    functions = inspect.getmembers(robustmm, inspect.isfunction)
    either = {n for n, f in functions if "| tuple" in str(f.__annotations__["return"])}
    assert either == {function.__name__ for function in WITH_OVERLOADS}


@pytest.mark.parametrize(
    "table", [pd.DataFrame(), np.zeros(2), [{"text": ""}], {"text": ""}, pd.Series()]
)
def test_the_kinds_of_tables_are_listed(table):
    kinds = [getattr(kind, "__origin__", kind) for kind in TableLike.__args__]
    assert isinstance(table, tuple(k for k in kinds if k.__name__ != "ToPandas"))
