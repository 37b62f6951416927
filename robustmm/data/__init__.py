"""From a DataFrame with holes to tensors."""

from .cache import IMAGES as IMAGES
from .cache import STATES as STATES
from .cache import ByteCache as ByteCache
from .cache import holding as holding
from .cache import open_cache as open_cache
from .dataset import Collate as Collate
from .dataset import MultimodalDataset as MultimodalDataset
from .dataset import bad_images_of as bad_images_of
from .decode import MAX_PIXELS as MAX_PIXELS
from .decode import decode_image as decode_image
from .faults import BadImage as BadImage
from .folder_cache import FolderCache as FolderCache
from .frame import MODALITIES as MODALITIES
from .frame import PATTERNS as PATTERNS
from .frame import Rows as Rows
from .frame import format_rows as format_rows
from .frame import read_rows as read_rows
from .images import ImageCells as ImageCells
from .images import find_bad_images as find_bad_images
from .images import image_key as image_key
from .paired import PairedCollate as PairedCollate
from .paired import PairedDataset as PairedDataset
from .pictures import Pictures as Pictures
from .preprocess import ImageTransform as ImageTransform
from .text import TextTokenizer as TextTokenizer
from .text import prepare_tokenizer as prepare_tokenizer
