"""Trainable pieces, pure torch."""

from .experts import ExpertLinear as ExpertLinear
from .experts import Experts as Experts
from .experts import JointExpertLinear as JointExpertLinear
from .gram import GRAMS as GRAMS
from .gram import PARAMETRIZATIONS as PARAMETRIZATIONS
from .gram import GramLinear as GramLinear
from .gram import GramPair as GramPair
from .head import TwoLayerHead as TwoLayerHead
from .head import trained_pooler as trained_pooler
from .lora import DoRALinear as DoRALinear
from .lora import LoRALinear as LoRALinear
from .lora import VeRABasis as VeRABasis
from .lora import VeRALinear as VeRALinear
from .prompts import N_PATTERNS as N_PATTERNS
from .prompts import PromptMemory as PromptMemory
from .prompts import SharedPrompts as SharedPrompts
from .prompts import add_prompt as add_prompt
from .prompts import layer_indices as layer_indices
from .prompts import normal_prompts as normal_prompts
from .prompts import pattern_index as pattern_index
from .prompts import sum_present as sum_present
from .routing import Router as Router
from .routing import Routing as Routing
from .routing import balance_loss as balance_loss
from .routing import usage_frame as usage_frame
