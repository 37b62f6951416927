"""Image+text classifiers for tables with holes, as scikit-learn estimators."""

from ._version import __version__ as __version__
from .backbones import load_backbone as load_backbone
from .base import BaseMultimodalClassifier as BaseMultimodalClassifier
from .display import AttentionMapDisplay as AttentionMapDisplay
from .display import AvailabilityRadarDisplay as AvailabilityRadarDisplay
from .display import ContinualMatrixDisplay as ContinualMatrixDisplay
from .display import CrossScenarioDisplay as CrossScenarioDisplay
from .display import EmbeddingDisplay as EmbeddingDisplay
from .display import ExpertUsageDisplay as ExpertUsageDisplay
from .display import ExplanationDisplay as ExplanationDisplay
from .display import LeaderboardDisplay as LeaderboardDisplay
from .display import MissingRateCurveDisplay as MissingRateCurveDisplay
from .display import RowsDisplay as RowsDisplay
from .display import show_rows as show_rows
from .ensemble import AutoMultimodalClassifier as AutoMultimodalClassifier
from .ensemble import EnsembleSelection as EnsembleSelection
from .ensemble import OutOfFoldFeatures as OutOfFoldFeatures
from .ensemble import TunedThresholdsClassifier as TunedThresholdsClassifier
from .evaluation import Explanation as Explanation
from .evaluation import availability_grid as availability_grid
from .evaluation import average_performance as average_performance
from .evaluation import compare_methods as compare_methods
from .evaluation import continual_matrix as continual_matrix
from .evaluation import cross_scenario_matrix as cross_scenario_matrix
from .evaluation import embedding_coordinates as embedding_coordinates
from .evaluation import expected_calibration_error as expected_calibration_error
from .evaluation import explain as explain
from .evaluation import forgetting as forgetting
from .evaluation import missing_rate_curve as missing_rate_curve
from .evaluation import modality_importance as modality_importance
from .evaluation import score_by_pattern as score_by_pattern
from .incremental import IncrementalClassifier as IncrementalClassifier
from .methods.cmpt import CMPTClassifier as CMPTClassifier
from .methods.dcp import DCPClassifier as DCPClassifier
from .methods.delo import DeLoClassifier as DeLoClassifier
from .methods.dual_prompt import DualPromptClassifier as DualPromptClassifier
from .methods.fine_tune import FineTuneClassifier as FineTuneClassifier
from .methods.gaussian_prototype import (
    GaussianPrototypeClassifier as GaussianPrototypeClassifier,
)
from .methods.l2p import L2PClassifier as L2PClassifier
from .methods.linear_probe import LinearProbeClassifier as LinearProbeClassifier
from .methods.mail import MAILClassifier as MAILClassifier
from .methods.map import MAPClassifier as MAPClassifier
from .methods.memprompt import MemPromptClassifier as MemPromptClassifier
from .methods.mora import MoRAClassifier as MoRAClassifier
from .methods.msp import MSPClassifier as MSPClassifier
from .methods.ranpac import RanPACClassifier as RanPACClassifier
from .methods.rebq import RebQClassifier as RebQClassifier
from .methods.sequential import SequentialClassifier as SequentialClassifier
from .missingness import apply_missing_table as apply_missing_table
from .missingness import drop_modalities as drop_modalities
from .missingness import missing_table as missing_table
from .persistence import load as load
from .persistence import save as save
from .trained import MultimodalClassifier as MultimodalClassifier
