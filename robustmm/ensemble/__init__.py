"""Several classifiers as one: tried on the same held-out rows, chosen and combined."""

from .automatic import AutoMultimodalClassifier as AutoMultimodalClassifier
from .selection import EnsembleSelection as EnsembleSelection
