"""Shared fixtures: one thread, fixed seeds, and CUDA tests that skip without one."""

import numpy as np
import pytest
import torch

torch.set_num_threads(1)

# Collection imports every module for its doctests. Whoever imports the first two has
# the pretended device from then on; those of stress and typed, and the shop, are
# programs of their own.
collect_ignore = ["pretended.py", "pretended_fits.py", "stress", "typed"]
collect_ignore += ["journeys/shop.py"]


@pytest.fixture(autouse=True)
def _seed_everything():
    np.random.seed(0)
    torch.manual_seed(0)


# What these share with DeLo, MAIL, MoRA and the class Gaussians is most of what
# promises are about: the suite holds those four to all, the slower one these as well.
SIBLINGS = ("DualPromptClassifier", "L2PClassifier", "SequentialClassifier")
SIBLINGS += ("RanPACClassifier", "MAPClassifier", "MemPromptClassifier")
SIBLINGS += ("DCPClassifier", "RebQClassifier", "RAGPTClassifier", "MSPClassifier")
PROMISES = ("test_contract.py", "test_threads.py", "test_checkpoint.py", "test_head.py")
PROMISES += ("test_precision.py", "test_quantized.py", "test_memory.py")
PROMISES += ("test_dropout.py", "test_fits_in_threads.py", "test_damage.py")


@pytest.hookimpl(tryfirst=True)  # before -m leaves tests out
def pytest_collection_modifyitems(items):
    for item in items:
        of_sibling = any(name in item.name for name in SIBLINGS)
        # Fits every class for each precision, on a device written in Python.
        of_pretended = item.path.name == "test_pretended.py"
        if of_pretended or (of_sibling and item.path.name in PROMISES):
            item.add_marker(pytest.mark.slow)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(skip)
