import json

import pytest

from robustmm.backbones import load_backbone
from robustmm.backbones.image_config import image_config

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
