"""How a checkpoint wants its images: its own settings over the architecture's."""

from __future__ import annotations

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
    """
    defaults = _defaults(config)
    stored = {name: value for name, value in stored.items() if value is not None}
    if "image_processor_type" not in stored and "feature_extractor_type" in stored:
        old = stored["feature_extractor_type"]
        stored["image_processor_type"] = old.replace(
            "FeatureExtractor", "ImageProcessor"
        )
    settings = defaults | stored
    square = settings["image_processor_type"].startswith(_SQUARE)
    settings["size"] = _sides(settings["size"], square)
    if "crop_size" in settings:
        settings["crop_size"] = _sides(settings["crop_size"], square=True)
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
    from transformers import AutoConfig

    known = dict(config)
    full = AutoConfig.for_model(known.pop("model_type"), **known)
    return getattr(full, "vision_config", full).image_size


def _sides(size: int | list[int] | dict, square: bool) -> dict:
    if isinstance(size, dict):
        return size
    if isinstance(size, int):
        if not square:
            return {"shortest_edge": size}
        size = [size, size]
    return {"height": size[0], "width": size[1]}
