"""Frozen Hugging Face models as streams of named tokens."""

from .backbone import Backbone as Backbone
from .base import Stream as Stream
from .loading import clear_backbone_cache as clear_backbone_cache
from .loading import load_backbone as load_backbone
from .prefix import FrozenPrefix as FrozenPrefix
from .prefix import text_keys as text_keys
from .tokens import Tokens as Tokens
