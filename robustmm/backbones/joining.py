"""Encoders of several checkpoints as one backbone."""

from __future__ import annotations

from .backbone import Backbone
from .loading import load_backbone


def join_encoders(
    image=None,
    text=None,
    *,
    audio=None,
    video=None,
    device="cpu",
    max_text_length: int | None = None,
) -> Backbone:
    """Load encoders of several checkpoints, each for the modality it is passed for.

    Examples
    --------
    >>> backbone = join_encoders("robustmm/tiny-clip", "robustmm/tiny-bert")
    >>> backbone.sources
    {'image': 'robustmm/tiny-clip', 'text': 'robustmm/tiny-bert'}
    >>> backbone = join_encoders(audio="robustmm/tiny-ast", video="robustmm/tiny-clip")
    >>> list(backbone.streams)
    ['audio', 'video']
    """
    names = {"image": image, "text": text, "audio": audio, "video": video}
    return Backbone.join(
        **{
            modality: load_backbone(
                name,
                streams=(modality,),
                device=device,
                max_text_length=max_text_length if modality == "text" else None,
            )
            for modality, name in names.items()
            if name is not None
        }
    )


def load_encoders(name_or_path, text=None, **options) -> Backbone:
    """Load a checkpoint, with the text encoder of another in the place of its own.

    Examples
    --------
    >>> list(load_encoders("robustmm/tiny-vilt").streams)
    ['joint']
    >>> load_encoders("robustmm/tiny-clip", "robustmm/tiny-bert").sources["text"]
    'robustmm/tiny-bert'
    """
    if text is None:
        return load_backbone(name_or_path, **options)
    return join_encoders(name_or_path, text, **options)
