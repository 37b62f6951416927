"""Every classifier on a device that is none: a GPU's rules, checked without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contract import public_classifiers
from torch.utils import backend_registration

import robustmm

TESTS = Path(__file__).parent
# Probabilities may differ from those of the CPU by as much.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
NAMES = [cls.__name__ for cls in public_classifiers()]
WAYS = ["fitted", "pickled", "moved", "loaded"]
RESUMED = [c.__name__ for c in public_classifiers() if hasattr(c, "checkpoint_dir")]

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
    or not hasattr(torch._C, "_set_only_lift_cpu_tensors"),
    reason="this torch cannot have a device that is written in Python",
)


@pytest.fixture(scope="module", params=TOLERANCE)
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def report(precision):
    """What one process found about all classes; torch would not forget the device."""
    root = Path(robustmm.__file__).parents[1]
    paths = os.pathsep.join([str(root), str(TESTS)])
    script = str(TESTS / "pretended_fits.py")
    written = subprocess.run(
        [sys.executable, "-W", "error", script, precision],
        check=True,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
    )
    return json.loads(written.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_trained_on_the_cpu_is_trained(report, name):
    on_the_cpu, there = report[name]["trained"]
    assert there == on_the_cpu
    assert there["counted"] == there["optimised"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_what_requires_a_gradient_is_a_parameter(report, name):
    assert report[name]["stray"] == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_those_of_the_cpu(report, precision, name, way):
    assert way in report[name], report[name]["error"]
    assert report[name][way] <= TOLERANCE[precision]


@pytest.mark.parametrize("name", RESUMED)
def test_a_killed_training_goes_on_as_on_the_cpu(report, precision, name):
    assert "resumed" in report[name], report[name]["error"]
    assert report[name]["resumed"] <= TOLERANCE[precision]
