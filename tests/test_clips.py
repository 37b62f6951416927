"""Classifiers of sounds and videos: parameters, fits, frames, saved models, checks."""

import warnings

import numpy as np
import pandas as pd
import pytest
from contract import small

import robustmm
from robustmm import (
    CMPTClassifier,
    FineTuneClassifier,
    LinearProbeClassifier,
    cross_scenario_matrix,
    missing_rate_curve,
    modality_importance,
    score_by_pattern,
)
from robustmm.datasets import make_clips
from robustmm.ensemble.candidates import default_candidates
from robustmm.testing import parametrize_with_checks
from robustmm.testing.subject import table

AV = ("audio", "video")
CLASSES = (CMPTClassifier, LinearProbeClassifier, FineTuneClassifier)


def clips(n=12):
    return table(n, columns=AV, modalities=AV)


def on_clips(cls, **params):
    return small(cls, **{"modalities": AV} | params)


@pytest.fixture(scope="module")
def probe():
    X, y = clips(24)
    return on_clips(LinearProbeClassifier).fit(X, y)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_fit_reads_clips_and_is_saved(cls, tmp_path):
    X, y = clips()
    params = {"tune": "lora"} if cls is FineTuneClassifier else {}
    clf = on_clips(cls, **params).fit(X, y)
    assert clf.feature_names_in_.tolist() == list(AV)
    counts = [clf.missing_report_[f"{name}_missing"] for name in AV]
    assert counts == [4, 4]
    robustmm.save(clf, tmp_path / "model", include_backbone=True)
    opened = robustmm.load(tmp_path / "model")
    assert opened.modalities == AV
    assert str(tmp_path) in opened.audio_backbone
    np.testing.assert_array_equal(opened.predict_proba(X), clf.predict_proba(X))


def test_columns_have_names_of_their_own_and_an_order(probe):
    X, y = clips(24)
    named = X.rename(columns={"audio": "sound", "video": "film"})
    other = on_clips(
        LinearProbeClassifier,
        modalities=("video", "audio"),
        audio_column="sound",
        video_column="film",
    ).fit(named, y)
    assert other.feature_names_in_.tolist() == ["film", "sound"]
    found = other.decision_function(named)
    np.testing.assert_allclose(found, probe.decision_function(X), atol=1e-4)
    array = named[["film", "sound"]].to_numpy(dtype=object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of names that arrays lack
        np.testing.assert_allclose(other.decision_function(array), found, atol=1e-5)


def test_one_modality_alone():
    X, y = clips()
    clf = on_clips(LinearProbeClassifier, modalities=("audio",))
    with pytest.warns(UserWarning, match="4 of 12 rows have no audio"):
        proba = clf.fit(X[["audio"]], y).predict_proba(X)
    lost = X["audio"].isna().to_numpy()
    np.testing.assert_allclose(proba[lost], np.tile(clf.class_prior_, (4, 1)))
    assert clf.missing_report_["audio_missing"] == 4


def test_image_and_text_are_what_they_were():
    X, y = table(12)
    plain = small(LinearProbeClassifier).fit(X, y)
    named = small(LinearProbeClassifier, modalities=["image", "text"]).fit(X, y)
    np.testing.assert_array_equal(plain.predict_proba(X), named.predict_proba(X))
    assert plain._modalities == ("image", "text")


def test_frames_are_random_in_training_alone_and_repeatable(monkeypatch):
    X, y = clips()
    drawn = []
    read = robustmm.data.VideoTransform.__call__

    def spy(self, cell, draw=None, root=None):
        drawn.append(draw is not None)
        return read(self, cell, draw, root)

    monkeypatch.setattr(robustmm.data.VideoTransform, "__call__", spy)
    params = {"max_epochs": 2, "cache": None}
    first = on_clips(CMPTClassifier, **params).fit(X, y)
    n = X["video"].notna().sum()
    # Screened and probed for the head's start, then two epochs.
    assert drawn == [False] * 2 * n + [True] * 2 * n
    drawn.clear()
    proba = first.predict_proba(X)
    assert not any(drawn)
    again = on_clips(CMPTClassifier, **params).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), proba)


def test_a_video_without_sound_has_a_missing_sound(monkeypatch):
    X, y = clips()
    silent = X["audio"].notna().to_numpy() & (np.arange(12) < 6)
    read = robustmm.data.AudioTransform.read

    def deaf(self, cell, root=None):
        return None if cell == "silent.mp4" else read(self, cell, root)

    monkeypatch.setattr(robustmm.data.AudioTransform, "read", deaf)
    monkeypatch.setattr(robustmm.data.clips.ClipCells, "_key", lambda self, cell: None)
    blanked, heard = X.copy(), X.copy()
    blanked.loc[silent, "audio"] = None
    heard.loc[silent, "audio"] = "silent.mp4"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf = on_clips(LinearProbeClassifier).fit(heard, y)
        found = clf.predict_proba(heard)
    # One that has nothing else is like a row of nothing: told of, and the prior.
    assert all("neither audio nor video" in str(w.message) for w in caught)
    assert clf.missing_report_["bad_audio"] == {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = on_clips(LinearProbeClassifier).fit(blanked, y)
        np.testing.assert_allclose(found, other.predict_proba(blanked), atol=1e-6)


def test_bad_clips_are_named_by_row_or_taken_as_missing():
    X, y = clips()
    X.iat[2, 0], X.iat[5, 1] = b"no sound", np.zeros((2, 3), np.uint8)
    said = r"1 audio cells.*'row2'.*1 video cells.*'row5'"
    with pytest.raises(ValueError, match=said):
        on_clips(CMPTClassifier).fit(X, y)
    with pytest.warns(UserWarning, match=said):
        clf = on_clips(CMPTClassifier, on_bad_image="missing").fit(X, y)
    assert set(clf.missing_report_["bad_audio"]) == {"row2"}
    assert set(clf.missing_report_["bad_video"]) == {"row5"}
    with pytest.warns(UserWarning, match=said):
        assert np.isfinite(clf.predict_proba(X)).all()


def test_an_epoch_is_scored_on_the_clips_that_are_held_out():
    X, y = clips(24)
    seen = []

    def scorer(estimator, table, labels):
        seen.append(list(table))
        return float((estimator.predict(table) == labels).mean())

    stop = {"early_stopping": True, "scoring": scorer, "validation_fraction": 0.3}
    clf = on_clips(CMPTClassifier, **stop).fit(X, y)
    assert seen == [list(AV)]
    assert 0 <= clf.history_["valid_score"].iloc[0] <= 1


def test_parameters_are_checked():
    X, y = clips(6)
    with pytest.raises(ValueError, match="video_backbone must name an encoder"):
        LinearProbeClassifier(
            modalities=("video",), video_backbone=None, device="cpu"
        ).fit(X, y)
    with pytest.raises(ValueError, match=r"named by \['audio_backbone'.*'text'"):
        on_clips(CMPTClassifier, audio_backbone="robustmm/tiny-bert").fit(X, y)
    with pytest.raises(ValueError, match="audio_backbone must be None unless"):
        small(CMPTClassifier, audio_backbone="robustmm/tiny-ast").fit(X, y)
    with pytest.raises(ValueError, match="X must have a column 'film'"):
        on_clips(CMPTClassifier, video_column="film").fit(X, y)


def test_what_is_of_images_and_texts_says_so(probe, tmp_path):
    X, _ = clips()
    with pytest.raises(NotImplementedError, match="reads images and texts"):
        probe.to_onnx(tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="must read an image and a text"):
        robustmm.explain(probe, X[:1])


# Evaluation ---------------------------------------------------------------------------


def test_scores_are_by_the_names_of_the_modalities(probe):
    X, y = clips(24)
    scores = score_by_pattern(probe, X, y)
    expected = ["complete", "video_missing", "audio_missing", "both_missing", "all"]
    assert scores.index.tolist() == expected
    assert scores["n_rows"].tolist() == [8, 8, 8, 0, 24]
    blanked = score_by_pattern(probe, X, y, rows="blanked")
    assert blanked.index.tolist() == expected[:3]
    assert blanked["n_rows"].tolist() == [8, 8, 8]
    importance = modality_importance(probe, X, y, n_repeats=1, random_state=0)
    assert importance.index.tolist() == list(AV)


def test_curves_and_matrices_blank_by_name():
    X, y = make_clips(16, 2, random_state=0)
    clf = on_clips(LinearProbeClassifier)
    curve = missing_rate_curve(clf, X, y, [0.0, 1.0], ["audio", "each"], cv=2)
    assert curve.groupby("scenario").size().to_dict() == {"audio": 4, "each": 4}
    matrix = cross_scenario_matrix(clf, X, y, cv=2, random_state=0)
    assert matrix.index.tolist() == ["video", "audio", "both"]
    with pytest.raises(ValueError, match="scenario must be one of"):
        missing_rate_curve(clf, X, y, [0.5], "text", cv=2)


# Automatic ----------------------------------------------------------------------------


def test_what_is_tried_on_clips():
    encoders = ["robustmm/tiny-ast", "robustmm/tiny-clip", "robustmm/tiny-bert"]
    found = default_candidates(encoders, {"modalities": AV}, 1, "cpu")
    kinds = {type(c.estimator).__name__ for c in found}
    assert kinds == {"PriorClassifier"} | {cls.__name__ for cls in CLASSES}
    for candidate in found:
        assert candidate.estimator.modalities == AV
    probes = [c.estimator for c in found if "probe" in c.family]
    assert {p.audio_backbone for p in probes} == {"robustmm/tiny-ast"}
    assert {p.video_backbone for p in probes} == {"robustmm/tiny-clip"}


@pytest.mark.slow
def test_the_automatic_classifier_reads_clips(tmp_path):
    X, y = clips(24)
    X.iat[5, 0] = b"no sound"
    auto = robustmm.AutoMultimodalClassifier(
        ["robustmm/tiny-ast", "robustmm/tiny-clip"],
        modalities=AV,
        max_epochs=1,
        on_bad_image="missing",
        random_state=0,
        device="cpu",
    )
    with pytest.warns(UserWarning, match="1 audio cells cannot be read"):
        auto.fit(X, y)
    assert set(auto.missing_report_["bad_audio"]) == {"row5"}
    assert {"video_missing", "audio_missing"} <= set(auto.leaderboard_)
    assert "text_missing" not in auto.leaderboard_
    X.iat[5, 0] = None
    robustmm.save(auto, tmp_path / "model")
    opened = robustmm.load(tmp_path / "model")
    np.testing.assert_array_equal(opened.predict_proba(X), auto.predict_proba(X))


# The whole battery --------------------------------------------------------------------


@pytest.mark.slow
@parametrize_with_checks([on_clips(CMPTClassifier)])
def test_promise(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize("modality", AV)
def test_mutated_cells_end_in_a_result_or_a_named_row(modality, probe):
    """A thousand cells of either kind, with bits of files and arrays changed."""
    from robustmm.testing.cells import as_clips

    X, _ = make_clips(2, 2, random_state=0)
    sound, film = X["audio"][0], X["video"][0]
    data, _ = as_clips(sound, film[:1], "bytes and list", None)
    rng = np.random.default_rng(0)
    cells = [_mutated(rng, data, sound, film, modality) for _ in range(500)]
    other = {"audio": film, "video": sound}[modality]
    named = {modality: cells, ({*AV} - {modality}).pop(): [other] * 500}
    table = {name: pd.Series(named[name], dtype=object) for name in AV}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lenient = probe.__copy__().set_params(on_bad_image="missing")
        assert np.isfinite(lenient.predict_proba(pd.DataFrame(table))).all()
    assert all(f"{modality} cells cannot" in str(w.message) for w in caught)


def _mutated(rng, data, sound, film, modality):
    if modality == "audio" and rng.random() < 0.8:
        broken = bytearray(data)
        for place in rng.integers(0, 60, rng.integers(1, 6)):
            broken[place] = rng.integers(256)
        return bytes(broken[: rng.integers(0, len(data) + 1)])
    if modality == "audio":
        return int(rng.integers(1, 10**6)), sound[1][: rng.integers(0, 900)]
    shape = rng.integers(0, 9, rng.integers(1, 6))
    return (
        film[: rng.integers(0, 6)] if rng.random() < 0.3 else np.zeros(shape, "uint8")
    )
