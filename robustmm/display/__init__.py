"""Pictures of numbers that were computed elsewhere.

Each display is made from an estimator or from a DataFrame, keeps what it shows as
attributes, and draws it with ``plot``, in axes of the caller or its own.
"""

from .attention import AttentionMapDisplay as AttentionMapDisplay
from .continual import ContinualMatrixDisplay as ContinualMatrixDisplay
from .curves import MissingRateCurveDisplay as MissingRateCurveDisplay
from .embedding import EmbeddingDisplay as EmbeddingDisplay
from .experts import ExpertUsageDisplay as ExpertUsageDisplay
from .explanation import ExplanationDisplay as ExplanationDisplay
from .factors import FactorUsageDisplay as FactorUsageDisplay
from .factors import QueryAlignmentDisplay as QueryAlignmentDisplay
from .leaderboard import LeaderboardDisplay as LeaderboardDisplay
from .memory import MemoryUsageDisplay as MemoryUsageDisplay
from .radar import AvailabilityRadarDisplay as AvailabilityRadarDisplay
from .rows import RowsDisplay as RowsDisplay
from .rows import show_rows as show_rows
from .scenarios import CrossScenarioDisplay as CrossScenarioDisplay
from .spectrum import SpectrumDisplay as SpectrumDisplay
