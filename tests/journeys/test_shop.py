"""A shop's whole way, which takes too long for the suite: ``pytest -m slow``."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "shop.py"


@pytest.mark.slow
def test_a_shop_goes_the_whole_way(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path / "shop")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == "The commands say the same"
    assert "1000 answers from 8 threads" in done.stdout
