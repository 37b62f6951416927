"""``python -m robustmm`` is the command line."""

import subprocess
import sys


def test_the_package_is_a_program():
    command = [sys.executable, "-m", "robustmm", "predict"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: robustmm predict")
