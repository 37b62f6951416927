"""Numbers and seeds that all synthetic data sets take."""

import numpy as np
import pytest

from robustmm.datasets._arguments import check_int, generator


def test_seeds_of_all_kinds():
    assert generator(3).integers(99) == generator(3).integers(99)
    own = np.random.default_rng(0)
    assert generator(own) is own
    old = np.random.RandomState
    assert generator(old(0)).integers(99) == generator(old(0)).integers(99)


@pytest.mark.parametrize("value", [True, 1.0, "2", 1, 9])
def test_integers_in_their_range(value):
    check_int("n", np.int64(8), 2, 8)
    with pytest.raises(ValueError, match=r"n must be an integer in \[2, 8\], got"):
        check_int("n", value, 2, 8)
    with pytest.raises(ValueError, match="n must be an integer >= 2"):
        check_int("n", 1, 2, np.inf)
