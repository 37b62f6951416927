"""Checks of what every classifier of tables with holes has to promise."""

from .battery import check_estimator as check_estimator
from .battery import parametrize_with_checks as parametrize_with_checks
