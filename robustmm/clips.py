"""Classifiers of images and texts that may read sounds and videos instead, or too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch

from .backbones import Backbone, join_encoders
from .data.frame import MODALITIES, check_modalities
from .table import TableClassifier

# One that is worth it, and one to try.
_EXAMPLES = {
    "image": ("openai/clip-vit-base-patch16", "robustmm/tiny-clip"),
    "text": ("bert-base-uncased", "robustmm/tiny-bert"),
    "audio": ("MIT/ast-finetuned-audioset-10-10-0.4593", "robustmm/tiny-ast"),
    "video": ("openai/clip-vit-base-patch16", "robustmm/tiny-clip"),
}


class ClipColumns(TableClassifier):
    """Names of what is read of a row, where sounds and videos are among it.

    Parameters
    ----------
    modalities : tuple of str
        What is read of a row: some of ``"image"``, ``"text"``, ``"audio"`` and
        ``"video"``; arrays have their columns in this order. A sound is a path, bytes,
        ``(rate, samples)`` or a dict with ``array`` and ``sampling_rate``; a video is a
        path to a file or to a folder of frames, bytes, a list of images or a uint8
        array (frames, height, width, 3).
    audio_column : str
        Name of the column of sounds. A file without a sound track is a missing one.
    video_column : str
        Name of the column of videos.
    """

    modalities: tuple[str, ...] = MODALITIES
    audio_column: str = "audio"
    video_column: str = "video"

    @property
    def _modalities(self) -> tuple[str, ...]:
        return tuple(self.modalities)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_modalities("modalities", self.modalities)


class ClipEncoders(ClipColumns):
    """Names of the encoders that read sounds and videos.

    Parameters
    ----------
    audio_backbone : str or path-like, optional
        Hub id, local folder or embedded name of an AST, for ``"audio"`` among the
        ``modalities``.
    video_backbone : str or path-like, optional
        The same of any image encoder, for ``"video"``. It reads three frames, whose
        features are averaged: one of each third, drawn at random in training, the
        middle ones in prediction and wherever frozen features are kept.
    """

    audio_backbone: str | Path | None = None
    video_backbone: str | Path | None = None

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for modality in {"audio", "video"} - set(self._modalities):
            value = getattr(self, f"{modality}_backbone")
            if value is not None:
                raise ValueError(
                    f"{modality}_backbone must be None unless modalities has "
                    f"{modality!r}, got {value!r} with {self._modalities}."
                )
        for modality in self._modalities:
            name = self._encoder_of(modality)
            if getattr(self, name) is None:
                good, tiny = _EXAMPLES[modality]
                raise ValueError(
                    f"{name} must name an encoder for the modality {modality!r}, such "
                    f"as {good!r}, or {tiny!r} to try it out, got None."
                )

    def _encoder_of(self, modality: str) -> str:
        """Return the parameter that names the encoder of a modality."""
        own = f"{modality}_backbone"
        if modality in ("audio", "video") or not hasattr(self, "backbone"):
            return own
        # A backbone's own text encoder reads the texts unless another one is named.
        return "backbone" if getattr(self, own, None) is None else own

    @property
    def _streams(self) -> tuple[str, ...] | None:
        plain = self._modalities == MODALITIES
        return self.STREAMS if plain else self._modalities

    def _load_backbone(self, device: torch.device) -> Backbone:
        if self._modalities == MODALITIES:
            return super()._load_backbone(device)
        return self._join_encoders(device)

    def _join_encoders(self, device: torch.device) -> Backbone:
        """Load an encoder for each modality, in their order."""
        names = {m: self._pinned(self._encoder_of(m)) for m in self._modalities}
        length = self.max_text_length
        return join_encoders(**names, device=device, max_text_length=length)

    def _needs(self, source: str, offers: Sequence[str]) -> str:
        if self._modalities == MODALITIES:
            return super()._needs(source, offers)
        names = [self._encoder_of(modality) for modality in self._modalities]
        return (
            f"{type(self).__name__} with modalities={self._modalities} stands on an "
            f"encoder for each, named by {names}, got {source!r}, which offers "
            f"{list(offers)}."
        )

    @classmethod
    def _small(cls, **params) -> Self:
        tiny = {"audio": "robustmm/tiny-ast", "video": "robustmm/tiny-clip"}
        read = params.get("modalities", ())
        encoders = {f"{m}_backbone": name for m, name in tiny.items() if m in read}
        return super()._small(**encoders | params)
