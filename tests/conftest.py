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


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(skip)
