"""Trainable pieces, pure torch."""

from .lora import DoRALinear as DoRALinear
from .lora import LoRALinear as LoRALinear
from .lora import VeRABasis as VeRABasis
from .lora import VeRALinear as VeRALinear
