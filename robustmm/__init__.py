"""Image+text classifiers for tables with holes, as scikit-learn estimators."""

from ._version import __version__ as __version__
from .backbones import load_backbone as load_backbone
from .base import MultimodalClassifier as MultimodalClassifier
from .display import ContinualMatrixDisplay as ContinualMatrixDisplay
from .display import ExpertUsageDisplay as ExpertUsageDisplay
from .evaluation import average_performance as average_performance
from .evaluation import continual_matrix as continual_matrix
from .evaluation import forgetting as forgetting
from .methods.cmpt import CMPTClassifier as CMPTClassifier
from .methods.delo import DeLoClassifier as DeLoClassifier
from .methods.fine_tune import FineTuneClassifier as FineTuneClassifier
from .methods.linear_probe import LinearProbeClassifier as LinearProbeClassifier
from .methods.mail import MAILClassifier as MAILClassifier
from .methods.map import MAPClassifier as MAPClassifier
from .methods.memprompt import MemPromptClassifier as MemPromptClassifier
from .methods.mora import MoRAClassifier as MoRAClassifier
from .methods.msp import MSPClassifier as MSPClassifier
from .missingness import drop_modalities as drop_modalities
from .missingness import missing_table as missing_table
from .persistence import load as load
from .persistence import save as save
