"""Data sets: some made on the spot, and the published ones from a local folder."""

from .ave import load_ave as load_ave
from .clips import make_clips as make_clips
from .composed import load_cirr as load_cirr
from .composed import load_fashion_iq as load_fashion_iq
from .crema_d import load_crema_d as load_crema_d
from .food101 import load_food101 as load_food101
from .hateful_memes import load_hateful_memes as load_hateful_memes
from .kinetics_sound import load_kinetics_sound as load_kinetics_sound
from .mmimdb import load_mmimdb as load_mmimdb
from .scenes import make_modified_scenes as make_modified_scenes
from .scenes import make_scenes as make_scenes
