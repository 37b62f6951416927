"""Frames of a video through an image encoder, one by one, and their mean."""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import Tensor

from .clip import ClipImageStream
from .image import ImageStream, SiglipImageStream, VitStream
from .tokens import Tokens

_N_FRAMES = "n_frames"


class FrameStream(ImageStream):
    """Runs the frames of a clip as images, and averages what it reads of them.

    Tokens have a row for each frame, B * T of them, clip by clip. What is read of them,
    as :meth:`pool` does, is averaged over the frames of a clip by :meth:`per_row`.
    """

    modality = "video"
    segments = ("video",)

    def embed(self, frame_values: Tensor, **_: Tensor) -> Tokens:
        """Embed clips (B, T, 3, H, W) as B * T images."""
        tokens = super().embed(pixel_values=frame_values.flatten(0, 1))
        return replace(tokens, context={_N_FRAMES: frame_values.shape[1]})

    def grid(self, frame_values: Tensor) -> tuple[int, int]:
        """Return how many patches frames have from top to bottom and across."""
        return super().grid(frame_values.flatten(0, 1))

    def pool(self, tokens: Tokens) -> Tensor:
        """Return the mean over frames of their pooled rows, (B, d)."""
        return self.per_row(tokens, super().pool(tokens))

    def per_row(self, tokens: Tokens, values: Tensor) -> Tensor:
        """Average over the frames of a clip, (B * T, d) -> (B, d)."""
        return values.unflatten(0, (-1, tokens.context[_N_FRAMES])).mean(dim=1)


class VitFrames(FrameStream, VitStream):
    """ViT, DeiT or DINOv2 on frames."""


class ClipFrames(FrameStream, ClipImageStream):
    """CLIP's image encoder on frames."""


class SiglipFrames(FrameStream, SiglipImageStream):
    """SigLIP's image encoder on frames."""


_FRAMES: dict[type[ImageStream], type[FrameStream]] = {
    VitStream: VitFrames,
    ClipImageStream: ClipFrames,
    SiglipImageStream: SiglipFrames,
}


def frames_of(stream: ImageStream) -> FrameStream:
    """Return a stream of videos around the same frozen parameters as one of images.

    Parameters
    ----------
    stream : ImageStream

    Raises
    ------
    ValueError
        If the stream is none of images.

    Examples
    --------
    >>> import torch
    >>> from robustmm import load_backbone
    >>> stream = frames_of(load_backbone("robustmm/tiny-clip")["image"])
    >>> tokens = stream.embed(torch.zeros(2, 3, 3, 48, 48))
    >>> len(tokens), stream.pool(stream.run(tokens)).shape
    (6, torch.Size([2, 128]))
    """
    kind = _FRAMES.get(type(stream))
    if kind is None:
        raise ValueError(
            "Frames need an image encoder, ViT, DeiT, DINOv2, CLIP or SigLIP, got "
            f"{type(stream).__name__}."
        )
    twin = kind.__new__(kind)
    twin.__dict__ = copy.deepcopy(stream).__dict__
    return twin
