"""Frozen Hugging Face models as streams of named tokens."""

from .attention import attention_frame as attention_frame
from .attention import attention_maps as attention_maps
from .backbone import Backbone as Backbone
from .backbone import fitted_on as fitted_on
from .features import POOLINGS as POOLINGS
from .features import FrozenFeatures as FrozenFeatures
from .features import encode_streams as encode_streams
from .features import projected as projected
from .features import projected_width as projected_width
from .host import HostBatch as HostBatch
from .host import take_rows as take_rows
from .host import upload as upload
from .loading import MissingStream as MissingStream
from .loading import clear_backbone_cache as clear_backbone_cache
from .loading import join_encoders as join_encoders
from .loading import load_backbone as load_backbone
from .loading import load_encoders as load_encoders
from .loading import save_checkpoint as save_checkpoint
from .prefix import FrozenPrefix as FrozenPrefix
from .prefix import text_keys as text_keys
from .revisions import pin as pin
from .revisions import revisions_by_name as revisions_by_name
from .stream import Stream as Stream
from .tokens import Tokens as Tokens
