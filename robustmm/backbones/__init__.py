"""Frozen Hugging Face models as streams of named tokens."""
