"""Pixels agree with the checkpoint's own processor."""

import importlib
import io
import json
import logging
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from robustmm.backbones.image_config import image_config
from robustmm.data.faults import BadImage
from robustmm.data.preprocess import ImageTransform

SIZES = [(31, 47), (47, 31), (224, 224), (225, 223), (640, 427), (501, 1003), (97, 96)]


def noisy(height, width, seed=0):
    """Noise on a gradient: sensitive to a wrong filter and to a shift of one pixel."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, height * width * 3).reshape(height, width, 3)
    return Image.fromarray((ramp + random.integers(0, 55, ramp.shape)).astype(np.uint8))


def processor_class(name):
    """Transformers' processor that uses Pillow."""
    logging.disable(logging.WARNING)  # it may remark that torchvision is absent
    package, end = f"transformers.models.{name.lower()}", name.lower()
    try:
        module = importlib.import_module(f"{package}.image_processing_pil_{end}")
        return getattr(module, f"{name}ImageProcessorPil")
    except ModuleNotFoundError:  # the name that it had in 5.0
        module = importlib.import_module(f"{package}.image_processing_{end}")
        return getattr(module, f"{name}ImageProcessor")
    finally:
        logging.disable(logging.NOTSET)


ARCHITECTURES = {"ViT": "vit", "DeiT": "deit", "Siglip": "siglip", "Vilt": "vilt"}
ARCHITECTURES |= {"CLIP": "clip", "Bit": "dinov2"}


def completed(name, stored):
    """The transform of a checkpoint with such settings."""
    config = {"model_type": ARCHITECTURES[name]}
    return ImageTransform.from_config(image_config(config, stored))


def named(name):
    return completed(name, {})


def pixels_of(transform, image):
    return transform.normalize(torch.as_tensor(transform(image))[None])


CONFIGS = [
    ("CLIP", {}),
    ("CLIP", {"size": {"shortest_edge": 50}, "crop_size": {"height": 40, "width": 70}}),
    ("CLIP", {"size": {"height": 64, "width": 48}, "do_center_crop": False}),
    ("CLIP", {"do_center_crop": False, "size": {"shortest_edge": 33}}),
    ("CLIP", {"size": {"shortest_edge": 64, "longest_edge": 80}}),
    ("CLIP", {"do_resize": False, "crop_size": {"height": 41, "width": 61}}),
    ("CLIP", {"do_normalize": False}),
    ("CLIP", {"do_rescale": False, "do_normalize": False}),
    ("ViT", {}),
    ("ViT", {"size": {"height": 30, "width": 17}, "resample": 3}),
    ("ViT", {"resample": 0}),
    ("DeiT", {}),
    ("Siglip", {}),
    ("Bit", {"size": {"shortest_edge": 256}}),
    ("Vilt", {}),
    ("Vilt", {"size": {"shortest_edge": 96}, "size_divisor": 16}),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("name", "config"), CONFIGS)
def test_equal_to_the_checkpoints_processor(name, config, size):
    processor, image = processor_class(name)(**config), noisy(*size)
    if "longest_edge" in config.get("size", {}) and "Pil" not in str(type(processor)):
        pytest.skip("transformers 5.0 reads no longest_edge")
    transform = completed(name, json.loads(processor.to_json_string()))
    theirs = processor(image, return_tensors="pt")["pixel_values"]
    ours = pixels_of(transform, image)
    assert ours.shape == theirs.shape
    one_level = transform.rescale / max(transform.std)
    assert (ours - theirs).abs().max() <= 0.01 * one_level  # the same uint8 pixels


def test_this_comparison_can_fail():
    image = noisy(301, 203)
    theirs = processor_class("CLIP")(resample=2)(image, return_tensors="pt")
    difference = pixels_of(named("CLIP"), image) - theirs["pixel_values"]
    assert difference.abs().max() > 5 / 255


@pytest.mark.parametrize("size", [(40, 3000), (3000, 40), (8, 2000)])
def test_vilt_bounds_elongated_images(size):
    transform = ImageTransform(shortest_edge=384, size_divisor=32)
    height, width, _ = transform(noisy(*size)).shape
    assert min(height, width) == 32
    assert max(height, width) <= 1333 / 800 * 384
    assert height % 32 == width % 32 == 0


def test_endless_images_are_bad():
    transform = ImageTransform(shortest_edge=224, crop_size=(224, 224))
    with pytest.raises(BadImage, match="too elongated to resize, got 20000 x 1 pixels"):
        transform(np.zeros((1, 20000), dtype=np.uint8))


def waves(height, width, length):
    y, x = np.mgrid[:height, :width] / length
    channels = [127 + 60 * np.sin(x + i) + 60 * np.cos(y - i) for i in range(3)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


@pytest.mark.parametrize(
    ("transform", "image"),
    [
        (named("CLIP"), waves(1207, 1603, 80)),
        (named("ViT"), waves(1207, 1603, 80)),
        (named("Vilt"), waves(1207, 1603, 80)),
        # At 1/8 the last row and column are mostly filling, and must be left out.
        (ImageTransform(size=(50, 75)), waves(801, 1201, 16)),
    ],
)
def test_reduced_jpeg_is_close_to_the_full_decode(transform, image):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    reduced = transform(stream.getvalue()).astype(int)
    full = transform(Image.open(stream)).astype(int)
    assert reduced.shape == full.shape
    assert np.abs(reduced - full).max() <= 8
    assert np.abs(reduced - full).mean() < 2


# ----------------------------------------------------------------------- from_config


COMPLETE = {
    "do_resize": True,
    "size": {"shortest_edge": 20},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 18, "width": 16},
    "do_rescale": True,
    "rescale_factor": 1 / 127.5,
    "do_normalize": True,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.3, 1],
}


def test_complete_settings():
    assert ImageTransform.from_config(COMPLETE) == ImageTransform(
        shortest_edge=20,
        crop_size=(18, 16),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 1.0),
        resample=3,
        rescale=1 / 127.5,
    )


@pytest.mark.parametrize("value", [None, "absent"])
@pytest.mark.parametrize("name", COMPLETE)
def test_incomplete_settings_are_refused(name, value):
    partial = {key: entry for key, entry in COMPLETE.items() if key != name}
    if value is None:
        partial[name] = None
    with pytest.raises(ValueError, match=rf"must be complete, \['{name}'\] are"):
        ImageTransform.from_config(partial)


def test_a_crop_size_is_not_needed_where_nothing_is_cropped():
    config = {**COMPLETE, "do_center_crop": False, "crop_size": None}
    assert ImageTransform.from_config(config).crop_size is None


def test_bounded_and_divided_sizes():
    size = {"shortest_edge": 20, "longest_edge": 30.0}
    transform = ImageTransform.from_config(COMPLETE | {"size": size})
    assert (transform.shortest_edge, transform.longest_edge) == (20, 30)
    transform = ImageTransform.from_config(COMPLETE | {"size_divisor": 4})
    assert (transform.shortest_edge, transform.size_divisor) == (20, 4)


def test_the_pixel_cap():
    assert ImageTransform.from_config(COMPLETE).max_pixels == 178_956_970
    assert ImageTransform.from_config(COMPLETE, max_pixels=9).max_pixels == 9
    transform = ImageTransform(size=(8, 8), max_pixels=99)
    with pytest.raises(BadImage, match="1 to 99 pixels, got 10 x 10"):
        transform(noisy(10, 10))
    assert transform(noisy(9, 11)).shape == (8, 8, 3)
    transform = ImageTransform(shortest_edge=10, max_pixels=2000)
    assert transform(noisy(10, 200)).shape == (10, 200, 3)
    with pytest.raises(BadImage, match="too elongated to resize, got 210 x 5 pixels"):
        transform(noisy(5, 210))


def test_vilt_with_a_fixed_size_is_not_floored():
    config = {
        **COMPLETE,
        "size": {"height": 130, "width": 120},
        "size_divisor": 16,
        "do_center_crop": False,
    }
    assert ImageTransform.from_config(config)(noisy(50, 20)).shape == (130, 120, 3)


def test_switches():
    off = {"do_rescale": False, "do_normalize": False}
    off = ImageTransform.from_config(COMPLETE | off)
    pixels = torch.randint(0, 256, (1, 4, 4, 3), dtype=torch.uint8)
    assert torch.equal(off.normalize(pixels), pixels.permute(0, 3, 1, 2).float())
    crops = ImageTransform.from_config(COMPLETE | {"do_resize": False})
    assert (crops.shortest_edge, crops.crop_size) == (None, (18, 16))


@pytest.mark.parametrize(
    "size",
    [
        {"longest_edge": 100},
        {"max_height": 3, "max_width": 3},
        {"height": 3},
        9,
        [9, 9],
    ],
)
def test_unsupported_sizes(size):
    with pytest.raises(ValueError, match="size must"):
        ImageTransform.from_config(COMPLETE | {"size": size})
    with pytest.raises(ValueError, match="crop_size must"):
        ImageTransform.from_config(COMPLETE | {"crop_size": size})


@pytest.mark.parametrize("edge", [0, -3, 2.5, "9", float("nan"), 10**400])
def test_sizes_are_whole_numbers(edge):
    for size in ({"shortest_edge": edge}, {"height": 9, "width": edge}):
        with pytest.raises(ValueError, match="whole numbers from 1, got"):
            ImageTransform.from_config(COMPLETE | {"size": size})


def test_sizes_that_no_memory_holds():
    for name, size in [
        ("size", {"shortest_edge": 10**6}),
        ("size", {"height": 10**6, "width": 10**4}),
        ("crop_size", {"height": 10**6, "width": 10**4}),
    ]:
        with pytest.raises(ValueError, match="at most 178956970 pixels, got 1000000 x"):
            ImageTransform.from_config(COMPLETE | {name: size})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_mean", [0.5, float("nan"), 0.5]),
        ("image_mean", 0.5),
        ("image_mean", [0.5, 0.5]),
        ("image_mean", "abc"),
        ("image_std", [0.5, 0, 0.5]),
        ("image_std", [0.5, "a", 0.5]),
        ("image_std", [0.5, float("inf"), 0.5]),
        ("rescale_factor", 0),
        ("rescale_factor", "a"),
        ("rescale_factor", float("inf")),
        ("resample", 60),
        ("resample", "bicubic"),
    ],
)
def test_numbers_that_make_no_pixels(name, value):
    with pytest.raises(ValueError, match=f"{name} must .*got"):
        ImageTransform.from_config(COMPLETE | {name: value})


def test_a_config_that_leaves_sizes_alone_is_refused():
    with pytest.raises(ValueError, match="must resize or crop"):
        ImageTransform.from_config(
            COMPLETE | {"do_resize": False, "do_center_crop": False}
        )


# ----------------------------------------------------------------- the transform itself


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        (ImageTransform(size=(5, 7)), (5, 7, 3)),
        (ImageTransform(shortest_edge=9, crop_size=(4, 6)), (4, 6, 3)),
        (ImageTransform(shortest_edge=100, size_divisor=32), (96, 96, 3)),
        (ImageTransform(shortest_edge=9), (9, 9, 3)),
    ],
)
def test_blank_is_white(transform, shape):
    blank = transform.blank()
    assert (blank.shape, blank.dtype) == (shape, np.uint8)
    assert (blank == 255).all()


def test_white_is_one_after_vilts_normalisation():
    transform = ImageTransform(size=(2, 2))
    values = transform.normalize(torch.as_tensor(transform.blank())[None])
    assert torch.equal(values, torch.ones(1, 3, 2, 2))


def test_normalize_keeps_channels_apart():
    transform = ImageTransform(size=(1, 2), mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    pixels = torch.tensor([[[[255, 255, 255], [0, 0, 0]]]], dtype=torch.uint8)
    values = transform.normalize(pixels)
    assert values.dtype == torch.float32
    assert values.shape == (1, 3, 1, 2)
    assert values.is_contiguous()
    assert values[0, :, 0].tolist() == [[1, 0], [1, -1], [0, -4]]


def test_keys_differ_where_pixels_differ():
    transforms = [
        ImageTransform(size=(8, 8)),
        ImageTransform(size=(8, 9)),
        ImageTransform(size=(8, 8), resample=3),
        ImageTransform(crop_size=(8, 8)),
        ImageTransform(size=(8, 8), crop_size=(8, 8)),
        ImageTransform(shortest_edge=8),
        ImageTransform(shortest_edge=8, longest_edge=16),
        ImageTransform(shortest_edge=8, size_divisor=4),
    ]
    assert len({transform.key for transform in transforms}) == len(transforms)
    assert ImageTransform(size=(8, 8), mean=(0.0,) * 3).key == transforms[0].key
    assert pickle.loads(pickle.dumps(transforms[0])) == transforms[0]


# ----------------------------------------------------------------- exact, and for less


def in_temporaries(transform, batch):
    """The formula, as it was first written down."""
    mean, std = torch.tensor(transform.mean), torch.tensor(transform.std)
    values = (batch.float() * transform.rescale - mean) / std
    return values.permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (300, 299), (37, 640)])
@pytest.mark.parametrize(
    "transform",
    [
        ImageTransform(),
        ImageTransform(mean=(0.481, 0.457, 0.408), std=(0.268, 0.261, 0.275)),
        ImageTransform(rescale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3),
        ImageTransform(rescale=1 / 127.5, mean=(1.0,) * 3, std=(0.3, -7.0, 1e-3)),
    ],
    ids=["halves", "clip", "raw", "odd"],
)
def test_normalising_is_the_formula_to_the_bit(transform, shape):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (5, *shape, 3), dtype=np.uint8)
    pixels.flat[:256] = np.arange(256)[: pixels.size]
    batch = torch.from_numpy(pixels)
    found = transform.normalize(batch)
    assert found.is_contiguous()
    assert torch.equal(found, in_temporaries(transform, batch))
    assert transform.normalize(batch[:0]).shape == (0, 3, *shape)


def test_normalising_writes_where_it_is_told():
    place = torch.zeros(1, 3, 6, 7)
    transform, pixels = ImageTransform(), torch.randint(0, 256, (1, 4, 5, 3)).byte()
    out = place[:, :, :4, :5]
    assert transform.normalize(pixels, out=out) is out
    assert torch.equal(place[:, :, :4, :5], transform.normalize(pixels))
    assert not place[:, :, 4:].any()


@pytest.mark.cuda
def test_a_card_normalises_to_the_same_bits():
    transform = ImageTransform(mean=(0.481, 0.457, 0.408), std=(0.268, 0.261, 0.275))
    pixels = torch.arange(256).byte().view(1, 16, 16, 1).repeat(1, 1, 1, 3)
    there = transform.normalize(pixels.cuda()).cpu()
    assert torch.equal(there, transform.normalize(pixels))


JPEG = [(640, 480), (90, 121), (8, 9)]


@pytest.mark.parametrize("size", JPEG, ids=str)
def test_a_check_fails_where_making_the_picture_fails(size):
    stream = io.BytesIO()
    noisy(*size).save(stream, "JPEG", quality=90)
    data, transform = stream.getvalue(), ImageTransform(size=(24, 24))
    cells = [data[:end] for end in (0, 3, 200, len(data) // 2, len(data) - 2)]
    elongated = np.zeros((2, 4000, 3), np.uint8)
    for cell in [data, *cells, "no.png", "http://x/y.png", elongated, np.zeros((2, 2))]:
        for kind in (transform, ImageTransform(shortest_edge=224)):
            assert reason(kind.check, cell) == reason(kind, cell)


def reason(function, cell):
    try:
        function(cell)
    except BadImage as error:
        return str(error)
    return None
