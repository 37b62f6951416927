import json

import pytest

from robustmm.backbones import load_backbone
from robustmm.backbones.image_config import image_config
from robustmm.data import ImageTransform

DEFAULTS = [
    ("vilt", {"shortest_edge": 16}, 0.5, False),
    ("clip", {"shortest_edge": 16}, 0.48145466, True),
    ("siglip", {"height": 16, "width": 16}, 0.5, False),
    ("vit", {"height": 16, "width": 16}, 0.5, False),
    ("deit", {"height": 16, "width": 16}, 0.485, True),
    ("dinov2", {"shortest_edge": 16}, 0.485, True),
]


@pytest.mark.parametrize(("name", "size", "mean", "crop"), DEFAULTS)
def test_defaults_of_the_architecture(folders, name, size, mean, crop):
    config = load_backbone(folders(name)).image_config
    assert config["size"] == size
    assert config["image_mean"][0] == mean
    assert config["do_center_crop"] is crop
    assert ("crop_size" in config) is crop
    assert config["do_resize"] is config["do_rescale"] is config["do_normalize"] is True


def test_the_checkpoints_own_settings_come_first(save_model, tmp_path):
    folder = save_model("clip", tmp_path)
    own = {"size": 20, "crop_size": 18, "image_mean": [0, 0, 0], "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    config = load_backbone(folder).image_config
    assert config["size"] == {"shortest_edge": 20}
    assert config["crop_size"] == {"height": 18, "width": 18}
    assert (config["image_mean"], config["resample"]) == ([0, 0, 0], 2)
    assert config["image_std"][0] == 0.26862954


def test_a_number_means_what_the_processor_takes_it_for(save_model, tmp_path):
    folder = save_model("clip", tmp_path)
    own = {"size": 20, "feature_extractor_type": "ViTFeatureExtractor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    config = load_backbone(folder).image_config
    assert config["size"] == {"height": 20, "width": 20}


def test_settings_inside_a_processor_config(save_model, tmp_path):
    folder = save_model("vit", tmp_path)
    inside = {"image_processor": {"size": {"height": 20, "width": 12}, "do_pad": None}}
    (folder / "processor_config.json").write_text(json.dumps(inside))
    config = load_backbone(folder).image_config
    assert config["size"] == {"height": 20, "width": 12}
    assert "do_pad" not in config


# What older files leave out, from the file to the transform ---------------------------


def transform(architecture, stored, **config):
    config = {"model_type": architecture, **config}
    return ImageTransform.from_config(image_config(config, stored))


def test_old_clip_config():
    stored = {
        "crop_size": 224,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48, 0.46, 0.41],
        "image_std": [0.27, 0.26, 0.28],
        "resample": 3,
        "size": 224,
    }
    assert transform("clip", stored) == ImageTransform(
        shortest_edge=224,
        crop_size=(224, 224),
        mean=(0.48, 0.46, 0.41),
        std=(0.27, 0.26, 0.28),
        resample=3,
    )


def test_old_vilt_config():
    expected = ImageTransform(shortest_edge=384, size_divisor=32, resample=3)
    for stored in (
        {"feature_extractor_type": "ViltFeatureExtractor", "size": 384},
        {"size": 384, "size_divisor": 32},
        {"size_divisor": None},
        {},
    ):
        assert transform("vilt", stored) == expected
    assert transform("vilt", {}, patch_size=16).size_divisor == 16
    named = transform("vit", {"image_processor_type": "ViltImageProcessor"})
    assert (named.shortest_edge, named.size_divisor) == (224, 32)


@pytest.mark.parametrize("key", ["image_processor_type", "feature_extractor_type"])
@pytest.mark.parametrize(
    ("name", "square"),
    [
        ("CLIPImageProcessor", False),
        ("CLIPFeatureExtractor", False),
        ("CLIPImageProcessorFast", False),
        ("ChineseCLIPImageProcessor", False),
        ("ChineseCLIPFeatureExtractor", False),
        ("BitImageProcessor", False),
        ("ViltImageProcessor", False),
        ("ViTImageProcessor", True),
        ("ViTFeatureExtractor", True),
        ("ViTImageProcessorFast", True),
        ("DeiTImageProcessor", True),
        ("DeiTFeatureExtractor", True),
        ("SiglipImageProcessor", True),
        ("Siglip2ImageProcessor", True),
    ],
)
def test_what_a_bare_number_means(key, name, square):
    for architecture in ("clip", "vit"):
        settings = image_config({"model_type": architecture}, {key: name, "size": 20})
        both, shorter = {"height": 20, "width": 20}, {"shortest_edge": 20}
        assert settings["size"] == (both if square else shorter)
        assert settings["image_processor_type"].count("ImageProcessor") == 1
        assert ImageTransform.from_config(settings) is not None


def test_the_newer_key_names_the_processor():
    both = {
        "image_processor_type": "ViTImageProcessor",
        "feature_extractor_type": "CLIPFeatureExtractor",
        "size": 20,
    }
    assert transform("clip", both).size == (20, 20)
    both["image_processor_type"] = None
    assert transform("vit", both).shortest_edge == 20


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (64, (64, 64)),
        (64.0, (64, 64)),
        ([32, 48], (32, 48)),
        ((32, 48), (32, 48)),
        ({"height": 32, "width": 48}, (32, 48)),
        ({"height": 32, "width": 48, "shortest_edge": None}, (32, 48)),
    ],
)
def test_fixed_sizes(size, expected):
    stored = {"feature_extractor_type": "ViTFeatureExtractor", "size": size}
    made = transform("vit", stored)
    assert (made.size, made.shortest_edge) == (expected, None)


def test_nulls_inside_a_size():
    size = {"height": None, "width": None, "shortest_edge": 9, "longest_edge": None}
    made = transform("clip", {"size": size})
    assert (made.size, made.shortest_edge, made.longest_edge) == (None, 9, None)


def test_nulls_are_left_out():
    names = ("size", "crop_size", "resample", "rescale_factor", "image_mean")
    names += ("image_std", "do_resize", "do_center_crop", "do_rescale", "do_normalize")
    for architecture in ("vilt", "clip", "siglip", "vit", "deit", "dinov2"):
        nulls = transform(architecture, dict.fromkeys(names))
        assert nulls == transform(architecture, {})


def test_zero_is_no_null():
    made = transform("vit", {"resample": 0, "image_mean": [0, 0, 0]})
    assert (made.resample, made.mean) == (0, (0.0, 0.0, 0.0))


@pytest.mark.parametrize("architecture", ["vilt", "vit", "clip", "dinov2"])
def test_cropping_without_a_crop_size(architecture):
    config = {"image_size": 64}
    if architecture == "clip":
        config = {"vision_config": config}
    stored = {"do_center_crop": True, "do_resize": False, "size": 300}
    made = transform(architecture, stored, **config)
    assert (made.size, made.shortest_edge) == (None, None)
    assert made.crop_size == (64, 64)


def test_no_crop_where_the_file_says_so():
    stored = {"do_center_crop": False, "crop_size": 64}
    assert transform("clip", stored).crop_size is None
    assert transform("vit", {"crop_size": 64}).crop_size is None


def test_switched_off():
    made = transform("clip", {"do_rescale": False, "do_normalize": False})
    assert (made.rescale, made.mean, made.std) == (1.0, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ValueError, match="must resize or crop"):
        transform("vit", {"do_resize": False})


def test_one_number_for_all_channels():
    made = transform("vit", {"image_mean": 0.25, "image_std": 2})
    assert (made.mean, made.std) == ((0.25,) * 3, (2.0,) * 3)


def test_rescaling_has_a_default():
    assert transform("vit", {"do_rescale": True}).rescale == 1 / 255
    assert transform("vit", {"rescale_factor": 1 / 127.5}).rescale == 1 / 127.5


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([1], "Image settings must be a mapping, got list"),
        ({"image_processor_type": 3}, "image_processor_type must be a str, got 3"),
        ({"size": "large"}, "size must be a number, two numbers or a mapping"),
        ({"size": [1, 2, 3]}, r"size must .* got \[1, 2, 3\]"),
        ({"do_center_crop": True, "crop_size": [1]}, "crop_size must be a number"),
    ],
)
def test_files_that_say_something_else(stored, message):
    with pytest.raises(ValueError, match=message):
        image_config({"model_type": "vit"}, stored)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_std", [0, 0, 0]),
        ("image_std", [0.5, 0.0, 0.5]),
        ("image_std", [0.5, float("nan"), 0.5]),
        ("image_std", float("inf")),
        ("image_std", [-0.5, 0.5, 0.5]),
        ("image_std", [0.5, 0.5]),
        ("image_std", "half"),
        ("image_mean", [0, 0, float("inf")]),
        ("image_mean", {"red": 0}),
        ("rescale_factor", 0),
        ("rescale_factor", float("nan")),
        ("size", 10**6),
        ("size", 0),
        ("size", -3),
        ("size", {"height": 16, "width": 10**9}),
        ("size", {"shortest_edge": 16, "longest_edge": 10**9}),
        ("size", {"shortest_edge": "16"}),
        ("size", [16, 16, 16]),
        ("size", "16"),
        ("crop_size", 10**5),
        ("crop_size", {"height": True, "width": 16}),
        ("resample", 17),
        ("resample", [3]),
        ("size_divisor", 10**9),
        ("size_divisor", 0),
    ],
)
def test_settings_that_no_picture_survives(name, value):
    config = {"model_type": "clip", "vision_config": {"image_size": 16}}
    with pytest.raises(ValueError, match=rf"(a size|{name}) must be .*, got "):
        image_config(config, {name: value})
