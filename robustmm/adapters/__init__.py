"""Trainable pieces, pure torch."""
