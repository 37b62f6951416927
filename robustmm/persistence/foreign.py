"""Members of an ensemble that are scikit-learn's: trees without anything to trust."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator

from ..table import TableClassifier
from .tree import dump_tree, load_tree, members_of, untrusted_types, walk

# The key of such a member in the document.
FOREIGN = "skops"


def dump_foreign(member: BaseEstimator) -> bytes:
    """Return a fitted estimator of scikit-learn's as :func:`load_foreign` takes it.

    Raises
    ------
    TypeError
        If it holds types that would have to be trusted, or a classifier of this
        package's, which has frozen weights.
    """
    inside = [type(v).__name__ for v in walk(member) if isinstance(v, TableClassifier)]
    content = b"" if inside else dump_tree(member)
    if odd := inside or untrusted_types(content):
        raise TypeError(
            "A member that is saved must be a classifier of this package's, or made of "
            f"scikit-learn's types, got {type(member).__name__} with {odd[:5]}."
        )
    return content


def load_foreign(content: np.ndarray) -> BaseEstimator:
    """Open a member, (n,) uint8, without executing anything.

    Raises
    ------
    ValueError
        If it is damaged, too large, or holds types that would have to be trusted.
    """
    try:
        tree = load_tree(np.asarray(content, dtype=np.uint8).tobytes())
    except ValueError as error:
        raise ValueError(f"A member of a saved model is not opened: {error}") from error
    if members_of(tree):
        raise ValueError("A member of a saved model must not have places for others.")
    return tree
