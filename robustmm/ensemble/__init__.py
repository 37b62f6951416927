"""Estimators made of others: chosen and combined, cross-fitted, with thresholds."""

from .automatic import AutoMultimodalClassifier as AutoMultimodalClassifier
from .out_of_fold import OutOfFoldFeatures as OutOfFoldFeatures
from .selection import EnsembleSelection as EnsembleSelection
from .thresholds import TunedThresholdsClassifier as TunedThresholdsClassifier
