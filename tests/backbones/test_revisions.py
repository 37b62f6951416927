"""A model of the hub at a revision: which texts are one, and what is loaded."""

import json
import shutil

import huggingface_hub
import pytest
from contract import frame_with_holes, small

import robustmm
from robustmm import CMPTClassifier, LinearProbeClassifier
from robustmm.backbones import load_backbone, pin, revisions_by_name
from robustmm.backbones.loading import _SHARED
from robustmm.backbones.revisions import split

X, Y = frame_with_holes()


@pytest.fixture
def snapshots(monkeypatch, tmp_path):
    """Put two states of "me/bert" and of "me/clip" into a local cache of the hub."""
    embedded = robustmm.backbones.checkpoint._EMBEDDED
    for name in ("bert", "clip"):
        repository = tmp_path / f"models--me--{name}"
        (repository / "refs" / "tags").mkdir(parents=True)
        for commit, refs in {"aaa": ["main"], "bbb": ["v1", "tags/one"]}.items():
            folder = repository / "snapshots" / commit
            shutil.copytree(embedded / f"tiny-{name}", folder)
            for ref in refs:
                (repository / "refs" / ref).write_text(commit)
    settings = tmp_path / "models--me--clip/snapshots/bbb/preprocessor_config.json"
    changed = json.loads(settings.read_text()) | {"image_mean": [0.25, 0.25, 0.25]}
    settings.write_text(json.dumps(changed))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def mean_of(backbone):
    return backbone.image_config["image_mean"][0]


@pytest.mark.parametrize("revision", ["v1", "tags/one", "bbb"])
def test_a_branch_a_tag_or_a_commit_is_loaded(snapshots, revision):
    pinned = load_backbone("me/clip", revision=revision)
    assert mean_of(pinned) == 0.25
    assert set(pinned.sources.values()) == {f"me/clip@{revision}"}
    assert mean_of(load_backbone(f"me/clip@{revision}")) == 0.25
    # Neither takes the other's place in the process.
    assert mean_of(load_backbone("me/clip")) != 0.25
    assert {("me/clip", "cpu"), (f"me/clip@{revision}", "cpu")} <= set(_SHARED)


def test_a_revision_that_is_not_there(snapshots):
    with pytest.raises(OSError, match=r"'me/clip@v2' cannot be found: .* HF_HUB_OFF"):
        load_backbone("me/clip", revision="v2")


def test_the_hub_is_asked_for_the_revision(monkeypatch, tmp_path):
    asked = []

    def fetch(name, filename, revision, **options):
        asked.append((name, revision))

    def ask(self, name, revision=None, timeout=None):
        asked.append((name, revision))

    monkeypatch.setattr("transformers.utils.cached_file", fetch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", ask)
    with pytest.raises(OSError, match=r"no config\.json under this name"):
        load_backbone("me/clip", revision="v1")
    assert len(asked) == 3
    assert set(asked) == {("me/clip", "v1")}


@pytest.mark.parametrize("name", ["robustmm/tiny-clip", "folder", "path", None])
def test_only_the_hub_has_revisions(name, tmp_path):
    name = {"folder": str(tmp_path), "path": tmp_path}.get(name, name)
    with pytest.raises(ValueError, match="must be that of a model on the hub"):
        load_backbone(name, revision="v1")


BAD = ["", "../x", "a/../b", "/etc", "-x", ".git", "a b", "v1@v2", "a//b", 3, "x\n"]


@pytest.mark.parametrize("revision", BAD)
def test_what_is_no_revision(revision):
    with pytest.raises(ValueError, match="must be the name of a branch, a tag"):
        pin("me/clip", revision)
    with pytest.raises(ValueError, match=r"name of a branch|must be None"):
        small(LinearProbeClassifier, backbone="me/clip", revision=revision).fit(X, Y)
    if isinstance(revision, str):
        with pytest.raises(ValueError, match="must be the name of a branch, a tag"):
            load_backbone(f"me/clip@{revision}")


def test_a_name_has_one_revision():
    with pytest.raises(ValueError, match="must not name another revision"):
        load_backbone("me/clip@v1", revision="v2")


def test_the_sign_may_be_in_a_folder_s_name(save_model, tmp_path):
    folder = save_model("bert", tmp_path / "me@home")
    assert list(load_backbone(folder).streams) == ["text"]
    assert split(str(folder)) == (str(folder), None)


def test_an_estimator_s_parameter_names_backbones():
    named = {"text_backbone": "v1"}
    assert revisions_by_name(named, ["backbone", "text_backbone"]) == named
    assert revisions_by_name(None, ["backbone"]) == {}
    with pytest.raises(ValueError, match=r"a text, a dict with keys of \['backbone'\]"):
        revisions_by_name({"lr": "v1"}, ["backbone", "lr"])
    clf = CMPTClassifier("me/clip", "me/bert", revision="v1")
    with pytest.raises(
        ValueError, match=r"None, or a dict with .*'image_backbone', 't"
    ):
        clf.fit(X, Y)


def test_a_pinned_text_backbone_has_to_be_there():
    clf = LinearProbeClassifier("me/clip", revision={"text_backbone": "v1"})
    with pytest.raises(ValueError, match="there is none of None, got 'v1'"):
        clf.fit(X, Y)


def test_two_encoders_are_pinned_apart(snapshots):
    revision = {"image_backbone": "v1", "text_backbone": "aaa"}
    clf = small(
        CMPTClassifier,
        image_backbone="me/clip",
        text_backbone="me/bert",
        revision=revision,
    ).fit(X, Y)
    sources = clf.net_.module_.backbone.sources
    assert sources == {"image": "me/clip@v1", "text": "me/bert@aaa"}


@pytest.mark.parametrize("include", [False, True])
def test_a_saved_model_keeps_its_revision(snapshots, tmp_path, include):
    clf = small(LinearProbeClassifier, backbone="me/clip", revision="v1").fit(X, Y)
    folder = tmp_path / "model"
    robustmm.save(clf, folder, include_backbone=include)
    if include:
        shutil.rmtree(snapshots / "models--me--clip")
    again = robustmm.load(folder)
    assert again.revision == (None if include else "v1")
    assert mean_of(again.net_.module_.backbone) == 0.25
    assert (again.predict(X) == clf.predict(X)).all()
    robustmm.save(again, tmp_path / "again")
    assert (robustmm.load(tmp_path / "again").predict(X) == clf.predict(X)).all()


def test_an_included_encoder_leaves_the_other_s_revision(snapshots, tmp_path):
    clf = small(
        LinearProbeClassifier,
        backbone="me/clip",
        text_backbone="robustmm/tiny-bert",
        revision={"backbone": "v1"},
    ).fit(X, Y)
    robustmm.save(clf, tmp_path / "model", include_backbone=True)
    again = robustmm.load(tmp_path / "model")
    assert again.revision is None
    assert (again.predict(X) == clf.predict(X)).all()


def test_another_revision_is_another_backbone(snapshots, tmp_path):
    clf = small(LinearProbeClassifier, backbone="me/clip", revision="v1").fit(X, Y)
    robustmm.save(clf, tmp_path / "model")
    document = tmp_path / "model" / "robustmm.json"
    text = document.read_text()
    assert '"revision": "v1"' in text
    document.write_text(text.replace('"revision": "v1"', '"revision": "aaa"'))
    with pytest.raises(ValueError, match=r"image settings of .*me/clip@aaa.* differ"):
        robustmm.load(tmp_path / "model")
