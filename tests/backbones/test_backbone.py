"""A backbone: its streams by name, whose weights, and which one was fitted on."""

import pytest
import torch

from robustmm.backbones import Backbone, fitted_on, load_backbone
from robustmm.backbones.backbone import Identity


@pytest.fixture
def clip(folders):
    return load_backbone(folders("clip"))


def test_streams_by_name(clip):
    assert clip["image"] is clip.streams["image"]
    assert "text" in clip
    assert "joint" not in clip
    with pytest.raises(ValueError, match=r"\['image', 'text'\], got 'joint'"):
        clip["joint"]


def test_a_fingerprint_is_computed_once_for_all_copies(clip, monkeypatch):
    fingerprint = clip.fingerprint
    assert len(fingerprint) == 64

    def forbidden(stream):
        raise AssertionError("computed again")

    monkeypatch.setattr("robustmm.backbones.backbone._fingerprint", forbidden)
    assert clip.copy().fingerprint == fingerprint
    assert clip.fingerprint == fingerprint


def test_each_stream_has_an_identity_of_its_own(clip):
    values = {name: Identity(stream).value for name, stream in clip.streams.items()}
    assert len(set(values.values())) == 2
    assert clip.is_same("image", clip["image"])
    assert clip.is_same("text", clip.copy()["text"])
    assert not clip.is_same("image", clip["text"])
    thawed = clip.copy()["text"]
    thawed.thaw(lambda name: name.endswith("bias"))
    with torch.no_grad():
        next(p for p in thawed.parameters() if p.requires_grad).add_(1)
    assert not clip.is_same("text", thawed)


def test_what_is_shared(clip):
    twin = clip.copy()
    assert all(twin.is_shared(p) for p in clip.parameters())
    assert not clip.is_shared(next(clip.parameters()).clone())
    assert twin is not clip
    assert twin.tokenizer is clip.tokenizer
    assert twin.image_config == clip.image_config


def test_joined_encoders_keep_where_they_are_from(clip, folders):
    bert = load_backbone(folders("bert"))
    joined = Backbone.join(image=clip, text=bert)
    assert joined["image"] is clip["image"]
    assert joined.sources == {
        "image": str(folders("clip")),
        "text": str(folders("bert")),
    }
    assert joined.is_same("text", bert["text"])


def test_the_backbone_that_was_fitted_on_is_let_through(clip):
    with fitted_on(clip.fingerprint, "SomeClassifier") as check:
        assert check(clip) is clip


def test_another_backbone_is_refused(clip):
    rule = (
        "differs from the one this SomeClassifier was fitted on .*expected 0123456789ab"
    )
    with (
        pytest.raises(ValueError, match=rule),
        fitted_on("0123456789abcdef", "SomeClassifier") as check,
    ):
        check(clip)


def test_a_backbone_that_is_gone_is_named():
    with (
        pytest.raises(
            OSError, match=r"SomeClassifier .*0123456789ab.*: no such folder"
        ),
        fitted_on("0123456789abcdef", "SomeClassifier"),
    ):
        raise OSError("no such folder")


def test_a_second_model_stands_beside_the_streams():
    first = load_backbone("robustmm/tiny-vilt")
    second = load_backbone("robustmm/tiny-clip")
    both = first.with_second(second)
    assert list(both.streams) == ["joint"]
    assert both.sources == {
        "joint": "robustmm/tiny-vilt",
        "second_image": "robustmm/tiny-clip",
        "second_text": "robustmm/tiny-clip",
    }
    assert len({b.fingerprint for b in (first, second, both)}) == 3
    assert both.inputs == first.inputs | {
        f"second_{name}": value for name, value in second.inputs.items()
    }
    assert both.part_from("robustmm/tiny-clip") is second
    assert both.part_from("robustmm/tiny-vilt") is both
    twin = both.copy()
    assert all(twin.is_shared(p) for p in twin.parameters())
    assert twin.second["image"] is not second["image"]
