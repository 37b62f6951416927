"""Load a frozen backbone once per process and hand out copies that share it."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..locks import ForkSafeLock
from .audio import ASTStream
from .backbone import Backbone, Identity
from .checkpoint import Checkpoint, find_checkpoint
from .clip import ClipImageStream, ClipTextStream
from .frames import frames_of
from .image import SiglipImageStream, VitStream
from .inputs import audio_fingerprint, image_fingerprint, text_fingerprint
from .revisions import pin
from .stream import Stream
from .text import BertStream, RobertaStream, TextPositions
from .vilt import ViltStream

# Every supported model type of Hugging Face: its streams, and how to take each one out.
_ARCHITECTURES: dict[str, dict[str, Callable[[nn.Module], Stream]]] = {
    "vilt": {"joint": ViltStream},
    "clip": {"image": ClipImageStream.of_clip, "text": ClipTextStream.of_clip},
    "siglip": {"image": SiglipImageStream.of_siglip},
    "bert": {"text": BertStream.of_bert},
    "roberta": {"text": RobertaStream.of_bert},
    "distilbert": {"text": BertStream.of_distilbert},
    "vit": {"image": VitStream.of_vit},
    "deit": {"image": VitStream.of_vit},
    "dinov2": {"image": VitStream.of_dinov2},
    "clip_vision_model": {"image": ClipImageStream},
    "siglip_vision_model": {"image": SiglipImageStream},
    "audio-spectrogram-transformer": {"audio": ASTStream},
}
_OFFERS = {name: tuple(streams) for name, streams in _ARCHITECTURES.items()}
_WITH_TEXT, _WITH_IMAGE = {"joint", "text"}, {"joint", "image", "video"}


@dataclass
class _Shared:
    """What all users of one checkpoint on one device have in common."""

    stamp: str
    streams: dict[str, Stream] = field(default_factory=dict)  # never wrapped
    longer: dict[tuple[str, int], Stream] = field(default_factory=dict)
    identities: dict[str, Identity] = field(default_factory=dict)
    tokenizer: object = None
    image_config: dict | None = None
    audio_config: dict | None = None


class MissingStream(ValueError):
    """A checkpoint that has not the streams asked for: its name, and what it offers."""

    def __init__(self, message: str, name: str, offers: tuple[str, ...]):
        super().__init__(message)
        self.name, self.offers = name, offers


_SHARED: dict[tuple[str, str], _Shared] = {}  # by location and device
_LOCK = ForkSafeLock(reentrant=True)


def _begin_child() -> None:
    """Give torch the one thread that came along."""
    torch.set_num_threads(1)


@cache
def _answer_in_children() -> None:
    """Let processes that are forked from now on compute with what is loaded.

    A fork leaves torch's pool of threads behind. What is to be computed with several,
    even if by another library, waits for them for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_begin_child)


def load_backbone(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    streams: tuple[str, ...] | None = None,
    device: str | torch.device = "cpu",
    max_text_length: int | None = None,
) -> Backbone:
    """Return a frozen backbone whose weights are shared inside the process.

    The files are read once per device; every call returns a module tree of its own
    around the same frozen parameters, so adapters in one do not show in another. What
    in them chooses programs, kernels or other files is left out: see the page on
    security.

    Parameters
    ----------
    name_or_path : str or path-like
        An embedded name (``"robustmm/tiny-vilt"``, ``"robustmm/tiny-clip"``,
        ``"robustmm/tiny-bert"``, ``"robustmm/tiny-ast"``), a local folder made with
        ``save_pretrained``, or an identifier on the Hugging Face hub, whose local cache
        is tried first.
    revision : str, optional
        Branch, tag or commit of a model on the hub; None means its main branch as the
        cache has it. Only a commit names the same files for ever. ``name@revision`` as
        the name is the same, and what ``sources`` shows.
    streams : tuple of str, optional
        Which streams of the checkpoint to take: ``"joint"``, ``"image"``, ``"text"``,
        ``"audio"``; or ``"video"``, an image encoder that reads frames. None takes all
        it has, images as images. The rest is not kept in memory.
    device : str or torch.device
        Where the weights are put.
    max_text_length : int, optional
        Longest text in tokens, special tokens included. None means the checkpoint's
        own number. Where it is larger than that, the position embeddings are
        interpolated linearly.

    Returns
    -------
    Backbone

    Raises
    ------
    OSError
        If nothing can be found under the name, files are missing, or the weights are
        not those that the configuration describes, or not finite.
    ValueError
        If the architecture is not supported or has no such stream, if the weights are
        quantised, if a size or an image setting is none of such a model, or if there is
        a revision of an embedded name or a folder.

    Examples
    --------
    >>> backbone = load_backbone("robustmm/tiny-clip")
    >>> list(backbone.streams), backbone.max_text_length > 2
    (['image', 'text'], True)
    """
    name_or_path = pin(name_or_path, revision)
    length = _check_text_length(max_text_length)
    place = str(torch.empty(0, device=device).device)
    _answer_in_children()
    with _LOCK.held(), quiet(), torch.inference_mode(False):
        checkpoint = find_checkpoint(name_or_path, _OFFERS)
        wanted = _check_streams(checkpoint, streams)
        shared = _shared(checkpoint, place, wanted)
        chosen = {name: shared.streams[name] for name in wanted}
        for name, stream in chosen.items():
            if isinstance(stream, TextPositions):
                length = stream.capacity if length is None else length
                if length > stream.capacity:
                    chosen[name] = _longer(shared, name, length)
    with_text, with_image = _WITH_TEXT & set(wanted), _WITH_IMAGE & set(wanted)
    return Backbone(
        chosen,
        sources=dict.fromkeys(wanted, str(name_or_path)),
        identities={name: shared.identities[name] for name in wanted},
        image_config=shared.image_config if with_image else None,
        audio_config=shared.audio_config if "audio" in wanted else None,
        tokenizer=shared.tokenizer if with_text else None,
        max_text_length=length if with_text else None,
    ).copy()


def clear_backbone_cache() -> None:
    """Forget all shared weights; those still used by an estimator stay in memory."""
    with _LOCK.held():
        _SHARED.clear()


def load_model(name_or_path: str | Path) -> tuple[nn.Module, dict[str, Stream]]:
    """Read a whole Hugging Face model, shared with nobody, and its streams.

    The streams run the model's own layers, so what is changed in one shows in the
    other.
    """
    with _LOCK.held(), quiet(), torch.inference_mode(False):
        checkpoint = find_checkpoint(name_or_path, _OFFERS)
        model = checkpoint.model()
    offered = _OFFERS[checkpoint.architecture]
    return model, {name: _made(checkpoint, name, model) for name in offered}


def _made(checkpoint: Checkpoint, name: str, model: nn.Module) -> Stream:
    """Take a stream out of a model."""
    makers = _ARCHITECTURES[checkpoint.architecture]
    return frames_of(makers["image"](model)) if name == "video" else makers[name](model)


def save_checkpoint(backbone: Backbone, source: str, folder: str | Path) -> None:
    """Write one of a backbone's checkpoints as a folder that needs no hub.

    Parameters
    ----------
    backbone : Backbone
    source : str
        One of ``backbone.sources``.
    folder : path-like
        Made; gets the weights as float32 safetensors, with tokenizer and image
        settings.

    Raises
    ------
    ValueError
        If the source's files are no longer those that the backbone was loaded from.
    """
    backbone = backbone.part_from(source)
    with _LOCK.held(), quiet(), torch.inference_mode(False):
        checkpoint = find_checkpoint(source, _OFFERS)
        offered = set(_OFFERS[checkpoint.architecture])
        model = checkpoint.model()
        tokenizer = checkpoint.tokenizer() if offered & _WITH_TEXT else None
        settings = _settings(checkpoint, offered)
        if not _is_unchanged(backbone, checkpoint, model, tokenizer, settings):
            raise ValueError(
                f"The files of {source!r} must be those that the backbone was loaded "
                "from, but they have changed."
            )
        model.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        if settings is not None:
            text = json.dumps(settings, indent=2, sort_keys=True)
            (Path(folder) / "preprocessor_config.json").write_text(text + "\n")


def _is_unchanged(
    backbone: Backbone, checkpoint: Checkpoint, model: nn.Module, tokenizer, settings
) -> bool:
    """Tell whether what was read again is what a backbone has of a checkpoint."""
    now = {}
    used = {name for name, s in backbone.sources.items() if s == checkpoint.name}
    if used & _WITH_TEXT:
        now["tokenizer"] = text_fingerprint(tokenizer)
    if used & _WITH_IMAGE:
        now["images"] = image_fingerprint(settings)
    if "audio" in used:
        now["audio"] = audio_fingerprint(settings)
    same = [backbone.is_same(n, _made(checkpoint, n, model)) for n in used]
    return all(same) and now.items() <= backbone.inputs.items()


def _settings(checkpoint: Checkpoint, streams: set[str]) -> dict | None:
    """Read how a checkpoint's pictures or sounds are prepared."""
    if "audio" in streams:
        return checkpoint.audio_config()
    return checkpoint.image_config() if streams & _WITH_IMAGE else None


def _check_text_length(length: int | None) -> int | None:
    if length is None:
        return None
    is_integer = hasattr(length, "__index__") and not isinstance(length, bool)
    if not is_integer or int(length) < 2:
        raise ValueError(
            "max_text_length must be None or an integer of at least 2, the number of "
            f"special tokens, got {length!r}."
        )
    return int(length)


def _check_streams(
    checkpoint: Checkpoint, streams: tuple[str, ...] | str | None
) -> tuple[str, ...]:
    offered = _OFFERS[checkpoint.architecture]
    if streams is None:
        return offered
    streams = (streams,) if isinstance(streams, str) else tuple(streams)
    # Any image encoder may read frames, if it is asked to.
    possible = offered + (("video",) if "image" in offered else ())
    if not streams or not set(streams) <= set(possible):
        raise MissingStream(
            f"streams must be one or more of {possible}, which is what a checkpoint of "
            f"architecture {checkpoint.architecture!r} offers, got {streams!r} for "
            f"{checkpoint.name!r}.",
            checkpoint.name,
            offered,
        )
    return tuple(name for name in possible if name in streams)


def _shared(checkpoint: Checkpoint, place: str, wanted: tuple[str, ...]) -> _Shared:
    """Return the shared streams of a checkpoint, reading what is not there yet."""
    shared = _SHARED.get((checkpoint.location, place))
    if shared is None or shared.stamp != checkpoint.stamp:
        shared = _Shared(checkpoint.stamp)
    missing = [name for name in wanted if name not in shared.streams]
    if _WITH_TEXT & set(missing):
        shared.tokenizer = checkpoint.tokenizer()
    if _WITH_IMAGE & set(missing):
        shared.image_config = checkpoint.image_config()
    if "audio" in missing:
        shared.audio_config = checkpoint.audio_config()
    if missing:
        model = checkpoint.model()
        for name in missing:
            stream = _made(checkpoint, name, model)
            shared.streams[name] = _on_its_own(stream, checkpoint.name).to(place)
            shared.identities[name] = Identity(shared.streams[name])
    _SHARED[checkpoint.location, place] = shared
    return shared


def _on_its_own(stream: Stream, source: str) -> Stream:
    # Tensors of the file's own type are views of the mapped file: they would change,
    # or crash the process, if it were overwritten.
    for name, parameter in stream.named_parameters():
        parameter.data = parameter.data.clone()
        # Many times faster than in torch.
        if not np.isfinite(parameter.detach().numpy()).all():
            raise OSError(
                f"The weights of {source!r} must be finite numbers, got NaN or "
                f"infinity in {name!r}."
            )
    return stream


def _longer(shared: _Shared, name: str, length: int) -> Stream:
    """Return a stream with positions for longer texts, made once."""
    if (name, length) not in shared.longer:
        stream = copy.deepcopy(shared.streams[name])
        stream.extend_positions(length)
        stream.freeze()
        shared.longer[name, length] = stream
    return shared.longer[name, length]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars, reports and warnings of loading and saving."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
