"""Image+text classifiers for tables with holes, as scikit-learn estimators."""

from ._version import __version__ as __version__
from .backbones import load_backbone as load_backbone
from .base import MultimodalClassifier as MultimodalClassifier
from .display import ExpertUsageDisplay as ExpertUsageDisplay
from .methods.cmpt import CMPTClassifier as CMPTClassifier
from .methods.mail import MAILClassifier as MAILClassifier
from .methods.map import MAPClassifier as MAPClassifier
from .methods.memprompt import MemPromptClassifier as MemPromptClassifier
from .methods.msp import MSPClassifier as MSPClassifier
from .methods.mora import MoRAClassifier as MoRAClassifier
from .missingness import drop_modalities as drop_modalities
from .missingness import missing_table as missing_table
