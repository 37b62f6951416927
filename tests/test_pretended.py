"""Every classifier on a device that is none: a GPU's rules, checked without a GPU."""

import itertools
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
# A class, parameters and whether it is fitted in two tasks.
VARIANTS = {
    "CMPT, early stopping": ("CMPTClassifier", {"early_stopping": True}, False),
    "DeLo, two tasks": ("DeLoClassifier", {}, True),
    "DeLo, static": (
        "DeLoClassifier",
        {"static": True, "cross_modal_guide": False},
        False,
    ),
    "fine-tuned ViLT": (
        "FineTuneClassifier",
        {"tune": "lora", "dropout": 0.1, "modality_dropout": 0.5},
        False,
    ),
    "fine-tuned CLIP": (
        "FineTuneClassifier",
        {"backbone": "robustmm/tiny-clip", "tune": "bitfit", "modality_dropout": 0.5},
        False,
    ),
    "MAIL, by row": (
        "MAILClassifier",
        {"router_level": "instance", "balance_weight": 0.1},
        False,
    ),
    "MemPrompt, one source": ("MemPromptClassifier", {"shared": "single"}, False),
    "MoRA, nothing kept": ("MoRAClassifier", {"cache": None}, False),
    "toy that asks the host": ("AskingClassifier", {}, False),
    "replay, two stages": ("SequentialClassifier", {"memory_size": 6}, True),
    "MSP, hidden images": ("MSPClassifier", {"mask_missing_image": True}, False),
}
CASES = {name: (name, {}, False) for name in NAMES}
WAYS = ["fitted", "pickled", "moved", "loaded"]
RESUMED = [c.__name__ for c in public_classifiers() if hasattr(c, "checkpoint_dir")]

# For every batch the host waits once: for its loss while training, for its outputs in a
# prediction. More often it waits here:
# What frozen layers make of a cell is kept by the host, and copied to it, for each
# stream, when it is new.
KEEPS = {"FineTuneClassifier": 1, "LinearProbeClassifier": 1, "MoRAClassifier": 2}
KEEPS |= {"DualPromptClassifier": 1, "L2PClassifier": 1, "RebQClassifier": 1}
KEEPS |= {"GaussianPrototypeClassifier": 1, "RanPACClassifier": 1}
KEEPS |= {"RAGPTClassifier": 1}
# Where that differs in a training: keys are made of all rows before the first step, and
# incomplete copies of complete rows are encoded, too.
KEEPS_IN_TRAINING = {"DualPromptClassifier": 0, "RebQClassifier": 3}
# A head that starts from a probe has read all rows by then.
KEEPS_IN_TRAINING |= {"FineTuneClassifier": 0, "MoRAClassifier": 0}
# A module that does not ask for the host's copies has the mask of its texts looked at.
LOOKS = {"ToyClassifier": 1}
# Which rows to run with the pools of which task is decided by keys on the device.
CHOOSES = {"DeLo, two tasks": 1}

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
    or not hasattr(torch._C, "_set_only_lift_cpu_tensors"),
    reason="this torch cannot have a device that is written in Python",
)


@pytest.fixture(scope="module")
def reports():
    """What one process per precision found; torch would not forget the device here."""
    return {}


def found_with(precision, reports):
    if precision not in reports:
        root = Path(robustmm.__file__).parents[1]
        paths = os.pathsep.join([str(root), str(TESTS)])
        script = str(TESTS / "pretended_fits.py")
        written = subprocess.run(
            [sys.executable, "-W", "error", script, precision],
            check=True,
            input=json.dumps(CASES | VARIANTS if precision == "float32" else CASES),
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": paths},
        )
        reports[precision] = json.loads(written.stdout)
    return reports[precision]


@pytest.fixture(params=TOLERANCE)
def precision(request):
    return request.param


@pytest.fixture
def report(precision, reports):
    return found_with(precision, reports)


@pytest.fixture
def float32_report(reports):
    return found_with("float32", reports)


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


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_compute_what_they_do_on_the_cpu(float32_report, name):
    found = float32_report[name]
    assert "fitted" in found, found["error"]
    assert found["fitted"] <= TOLERANCE["float32"]
    assert found["trained"][0] == found["trained"][1]
    assert found["stray"] == []


@pytest.mark.parametrize("name", CASES | VARIANTS)
def test_a_step_waits_once_for_its_loss(float32_report, name):
    first, *later = float32_report[name]["epochs"]
    always = 1 + LOOKS.get(name, 0)
    kept = KEEPS_IN_TRAINING.get(name, KEEPS.get(name, 0))
    assert first
    for waits in first:
        assert len(waits) == always + kept, waits
    for waits in itertools.chain(*later):
        assert len(waits) == always, waits


@pytest.mark.parametrize("name", CASES | VARIANTS)
def test_a_batch_of_a_prediction_waits_once_for_its_outputs(float32_report, name):
    always = 1 + LOOKS.get(name, 0) + CHOOSES.get(name, 0)
    for rows, expected in (("new", always + KEEPS.get(name, 0)), ("known", always)):
        found = float32_report[name][f"{rows} rows"]
        assert found["around"] == []
        assert len(found["batches"]) == 2
        for waits in found["batches"]:
            assert len(waits) == expected, waits


@pytest.mark.parametrize("name", RESUMED)
def test_a_killed_training_goes_on_as_on_the_cpu(report, precision, name):
    assert "resumed" in report[name], report[name]["error"]
    assert report[name]["resumed"] <= TOLERANCE[precision]
