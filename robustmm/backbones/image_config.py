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
_VILT_DIVISOR = 32


def image_config(config: dict, stored: dict) -> dict:
    """Return complete image settings in the words of ``preprocessor_config.json``.

    All of ``image_processor_type``, the switches ``do_resize``, ``do_center_crop``,
    ``do_rescale`` and ``do_normalize``, ``size``, ``resample``, ``rescale_factor``,
    ``image_mean`` and ``image_std`` are there; ``crop_size`` where images are cropped;
    ``size_divisor`` for ViLT's processor. Sizes are mappings, and mean and deviation
    have one number per channel.

    Parameters
    ----------
    config : dict
        The model's ``config.json``.
    stored : dict
        What its ``preprocessor_config.json`` says; may be partial or empty. A null
        counts as left out.

    Raises
    ------
    ValueError
        If `stored` is no mapping, one of its entries is of another type, or its numbers
        would make pixels infinite, or images far larger than those of the training.

    Examples
    --------
    >>> old = {"feature_extractor_type": "ViTFeatureExtractor", "size": 20}
    >>> settings = image_config({"model_type": "vit"}, old)
    >>> settings["size"], settings["image_mean"]
    ({'height': 20, 'width': 20}, [0.5, 0.5, 0.5])
    """
    if not isinstance(stored, dict):
        raise ValueError(
            f"Image settings must be a mapping, got {type(stored).__name__}."
        )
    defaults, stored = _defaults(config), _given(stored)
    name = _processor(stored, defaults["image_processor_type"])
    settings = defaults | stored | {"image_processor_type": name}
    if settings["do_center_crop"]:
        settings.setdefault("crop_size", defaults["size"])
    if name.startswith("Vilt"):
        settings.setdefault("size_divisor", _VILT_DIVISOR)
    for key in {"size", "crop_size"} & set(settings):
        square = key == "crop_size" or name.startswith(_SQUARE)
        settings[key] = _sides(key, settings[key], square)
    for key in ("image_mean", "image_std"):
        settings[key] = _channels(settings[key])
    _check(settings, config)
    return settings


def _given(stored: dict) -> dict:
    return {name: value for name, value in stored.items() if value is not None}


def _processor(stored: dict, default: str) -> str:
    """The processor that a file names, under its own or an older key."""
    old = stored.get("feature_extractor_type")
    name = stored.get("image_processor_type") or old or default
    if not isinstance(name, str):
        raise ValueError(f"image_processor_type must be a str, got {name!r:.80}.")
    return name.replace("FeatureExtractor", "ImageProcessor")


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
    if architecture == "vilt":
        settings["size_divisor"] = config.get("patch_size", _VILT_DIVISOR)
    return settings


def _image_size(config: dict) -> int | list[int]:
    # A configuration leaves out what equals the default of its class.
    full = model_config(config)
    return getattr(full, "vision_config", full).image_size


def _sides(name: str, size: int | list[int] | dict, square: bool) -> dict:
    if isinstance(size, dict):
        return _given(size)
    if isinstance(size, int | float):
        if not square:
            return {"shortest_edge": size}
        size = [size, size]
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise ValueError(
            f"{name} must be a number, two numbers or a mapping, got {size!r:.80}."
        )
    return {"height": size[0], "width": size[1]}


def _channels(values: float | list[float]) -> list[float]:
    return [values] * 3 if isinstance(values, int | float) else values


def _check(settings: dict, config: dict) -> None:
    sides = _image_size(config)
    largest = _LARGER * max(sides if isinstance(sides, list | tuple) else [sides])
    for name in ("size", "crop_size"):
        for edge in settings.get(name, {}).values():
            _check_edge(name, edge, largest)
    if "size_divisor" in settings:
        _check_edge("size_divisor", settings["size_divisor"], largest)
    if settings["resample"] not in range(6):
        raise ValueError(f"resample must be 0 to 5, got {settings['resample']!r:.80}.")
    for name in ("image_mean", "image_std", "rescale_factor"):
        _check_factor(name, settings[name], positive=name != "image_mean")


def _check_edge(name: str, edge, largest: int) -> None:
    if not _is_number(edge) or not 1 <= edge <= largest:
        raise ValueError(f"{name} must be in [1, {largest}], got {edge!r:.80}.")


def _check_factor(name: str, value, positive: bool) -> None:
    values = value if isinstance(value, list | tuple) else [value] * 3
    finite = all(_is_number(v) and math.isfinite(v) for v in values)
    if len(values) != 3 or not finite or (positive and min(values) <= 0):
        rule = "one or three positive numbers" if positive else "one or three numbers"
        raise ValueError(f"{name} must be {rule}, got {value!r:.80}.")


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
