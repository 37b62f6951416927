"""How a checkpoint wants its images: its own settings over the architecture's."""

from __future__ import annotations

import math

from .model_config import model_config

# Positions are interpolated to another size; no checkpoint asks for this much.
_LARGER = 8
_HALF = [0.5, 0.5, 0.5]
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_CLIP = (
    [0.48145466, 0.4578275, 0.40821073],
    [0.26862954, 0.26130258, 0.27577711],
)
_BILINEAR, _BICUBIC = 2, 3

# Processor, mean and standard deviation, resampling, centre crop.
_DEFAULTS = {
    "vilt": ("ViltImageProcessor", (_HALF, _HALF), _BICUBIC, False),
    "clip": ("CLIPImageProcessor", _CLIP, _BICUBIC, True),
    "siglip": ("SiglipImageProcessor", (_HALF, _HALF), _BICUBIC, False),
    "vit": ("ViTImageProcessor", (_HALF, _HALF), _BILINEAR, False),
    "deit": ("DeiTImageProcessor", _IMAGENET, _BICUBIC, True),
    "dinov2": ("BitImageProcessor", _IMAGENET, _BICUBIC, True),
}
# These read one number as both sides; the others as the shorter side.
_SQUARE = ("ViT", "DeiT", "Siglip")


def image_config(config: dict, stored: dict) -> dict:
    """Return complete image settings in the words of ``preprocessor_config.json``.

    Parameters
    ----------
    config : dict
        The model's ``config.json``.
    stored : dict
        What its ``preprocessor_config.json`` says; may be partial or empty.

    Raises
    ------
    ValueError
        For numbers that would make pixels infinite, or images far larger than those
        the model was trained with.
    """
    defaults = _defaults(config)
    stored = {name: value for name, value in stored.items() if value is not None}
    if "image_processor_type" not in stored and "feature_extractor_type" in stored:
        old = str(stored["feature_extractor_type"])
        stored["image_processor_type"] = old.replace(
            "FeatureExtractor", "ImageProcessor"
        )
    settings = defaults | stored
    square = str(settings["image_processor_type"]).startswith(_SQUARE)
    settings["size"] = _sides(settings["size"], square)
    if "crop_size" in settings:
        settings["crop_size"] = _sides(settings["crop_size"], square=True)
    _check(settings, config)
    return settings


def _defaults(config: dict) -> dict:
    architecture = config["model_type"].removesuffix("_vision_model")
    processor, (mean, std), resample, crop = _DEFAULTS[architecture]
    side = _image_size(config)
    settings = {
        "image_processor_type": processor,
        "do_resize": True,
        "size": side,
        "resample": resample,
        "do_center_crop": crop,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }
    if crop:
        settings["crop_size"] = side
    if architecture == "vilt":
        settings["size_divisor"] = config.get("patch_size", 32)
    return settings


def _image_size(config: dict) -> int | list[int]:
    # A configuration leaves out what equals the default of its class.
    full = model_config(config)
    return getattr(full, "vision_config", full).image_size


def _sides(size: int | list[int] | dict, square: bool) -> dict:
    if isinstance(size, dict):
        return size
    if isinstance(size, int):
        if not square:
            return {"shortest_edge": size}
        size = [size, size]
    if not isinstance(size, list) or len(size) != 2:
        raise ValueError(f"a size must be one or two numbers, got {size!r:.80}.")
    return {"height": size[0], "width": size[1]}


def _check(settings: dict, config: dict) -> None:
    sides = _image_size(config)
    largest = _LARGER * max(sides if isinstance(sides, list | tuple) else [sides])
    for name in ("size", "crop_size"):
        for edge in settings.get(name, {}).values():
            _check_edge(name, edge, largest)
    if "size_divisor" in settings:
        shortest = min(settings["size"].values(), default=0)
        _check_edge("size_divisor", settings["size_divisor"], shortest)
    if settings["resample"] not in range(6):
        raise ValueError(f"resample must be 0 to 5, got {settings['resample']!r:.80}.")
    for name in ("image_mean", "image_std", "rescale_factor"):
        _check_factor(name, settings[name], positive=name != "image_mean")


def _check_edge(name: str, edge, largest: int) -> None:
    if type(edge) is not int or not 1 <= edge <= largest:
        raise ValueError(f"{name} must be in [1, {largest}], got {edge!r:.80}.")


def _check_factor(name: str, value, positive: bool) -> None:
    values = value if isinstance(value, list) else [value] * 3
    finite = all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
        for v in values
    )
    if len(values) != 3 or not finite or (positive and min(values) <= 0):
        rule = "one or three positive numbers" if positive else "one or three numbers"
        raise ValueError(f"{name} must be {rule}, got {value!r:.80}.")
