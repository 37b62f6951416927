"""A fit on a table in a file needs the memory of its rows' bookkeeping, not theirs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.scale

TESTS = Path(__file__).parents[1]
SCRIPT = TESTS / "memory_of_fit.py"
# Bytes for each row, beside its cells: labels, weights, its place in the order.
MOST_OF_A_ROW = 400
CELL = 4800


def measure(kind, n_rows):
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), kind, str(n_rows)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_cells_of_a_table_in_a_file_are_not_held():
    frame = measure("frame", 20_000)
    small, large = measure("stored", 20_000), measure("stored", 80_000)
    assert frame["peak"] - small["peak"] > 0.8 * 20_000 * CELL
    assert large["peak"] - small["peak"] < 60_000 * MOST_OF_A_ROW
    assert small["bias"] == frame["bias"]
