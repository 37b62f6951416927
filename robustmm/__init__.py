"""Image+text classifiers for tables with holes, as scikit-learn estimators."""

from ._version import __version__ as __version__
