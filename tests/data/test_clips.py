"""Sounds and videos of a table: names, caches, what is bad, and batches of them."""

import numpy as np
import pytest
import torch

from robustmm.data import (
    AudioTransform,
    ByteCache,
    Collate,
    ImageTransform,
    MultimodalDataset,
    Rows,
    VideoTransform,
    bad_images_of,
)
from robustmm.data.clips import NO_SOUND, ClipCells, find_bad_clips
from robustmm.data.screening import (
    missing_report,
    report_bad_images,
    without_images,
)

AUDIO = AudioTransform(n_mels=8, n_frames=6)
VIDEO = VideoTransform(ImageTransform(size=(4, 4)), n_frames=3)
CLIPS = {"audio": AUDIO, "video": VIDEO}


def sound(seed=0, rate=16000, n=1200):
    return rate, np.random.default_rng(seed).uniform(-1, 1, n).astype("float32")


def film(seed=0, frames=30):
    # Every frame in one colour of its own, to be told which one was taken.
    shades = np.arange(frames, dtype=np.uint8) + np.uint8(seed)
    return np.ones((frames, 5, 5, 3), np.uint8) * shades[:, None, None, None]


def rows_of(sounds, films, index=None):
    cells = {"audio": list(sounds), "video": list(films)}
    return Rows.of(cells, index or list(range(len(sounds))))


def named(cell, modality="audio", transform=AUDIO):
    rows = Rows.of({modality: [cell]}, [0])
    return ClipCells(rows, modality, transform, ByteCache(10**6)).read(0)[1]


class Silent:
    """Takes every cell for a video without a sound track."""

    key = "silent"

    def read(self, cell, root):
        return None

    def blank(self):
        return AUDIO.blank()


def test_clips_are_named_by_content(tmp_path):
    assert named(sound()) == named(sound())
    others = [sound(1), (8000, sound()[1]), {"a": 1}]
    assert len({named(sound()), *map(named, others[:2])}) == 3
    assert named(sound(), transform=AudioTransform(n_mels=9, n_frames=6)) != named(
        sound()
    )
    assert named(film(), "video", VIDEO) != named(film(1), "video", VIDEO)
    # A list of frames has no name of its own: what is made of it has.
    assert named(list(film()), "video", VIDEO) == named(list(film()), "video", VIDEO)
    assert named(list(film(1)), "video", VIDEO) != named(list(film()), "video", VIDEO)


def test_a_clip_is_made_once():
    cache, rows = ByteCache(10**6), rows_of([sound()] * 2, [film()] * 2)
    cells = ClipCells(rows, "audio", AUDIO, cache)
    first, _, _ = cells.read(0)
    again, _, _ = cells.read(1)
    assert np.shares_memory(first, again)
    assert len(cache) == 1
    np.testing.assert_array_equal(first, AUDIO.read(sound()))


def test_frames_that_are_drawn_are_not_kept():
    cache = ByteCache(10**6)
    cells = ClipCells(rows_of([None], [film()]), "video", VIDEO, cache)
    drawn, key, _ = cells.read(0, np.random.default_rng(0))
    assert key is None
    assert len(cache) == 0
    assert drawn[:, 0, 0, 0].tolist() != cells.read(0)[0][:, 0, 0, 0].tolist()


def test_bad_clips_are_found_and_a_silent_one_is_none():
    rows = rows_of([b"", sound(), None], [film(), None, "nowhere.mp4"])
    audio = find_bad_clips(ClipCells(rows, "audio", AUDIO))
    video = find_bad_clips(ClipCells(rows, "video", VIDEO), num_workers=2)
    assert list(audio) == [(0, "audio")]
    assert list(video) == [(2, "video")]
    with pytest.raises(ValueError, match=r"1 audio cells.*row 0.*1 video cells.*row 2"):
        report_bad_images(rows, audio | video, "raise")
    assert without_images(rows, audio | video).present.tolist() == [
        [False, True],
        [True, False],
        [False, False],
    ]
    silent = find_bad_clips(ClipCells(rows, "audio", Silent()))
    assert silent == dict.fromkeys([(0, "audio"), (1, "audio")], NO_SOUND)
    report_bad_images(rows, silent, "raise")
    left = without_images(rows, silent)
    assert not left.present[:, 0].any()
    assert missing_report(left, silent)["bad_audio"] == {}


def dataset_of(rows, **options):
    return MultimodalDataset(rows, None, None, clips=CLIPS, **options)


def collate_of(rows):
    return Collate(None, None, clips=CLIPS, modalities=rows.modalities)


def test_a_batch_of_clips():
    rows = rows_of([sound(), None, b""], [None, film(), film()])
    data = dataset_of(rows, cache=ByteCache(10**6), on_bad_image="record")
    batch, _ = collate_of(rows)([data[i] for i in range(3)])
    assert batch["input_values"].shape == (3, 6, 8)
    assert batch["frame_values"].shape == (3, 3, 3, 4, 4)
    assert batch["present"].tolist() == [[True, False], [False, True], [False, True]]
    blank = torch.from_numpy(AUDIO.blank())
    assert torch.equal(batch["input_values"][1], blank)
    assert not batch["audio_key"][1:].any()
    assert batch["audio_key"][0].any()
    assert bad_images_of(batch) == {(2, "audio"): "it is empty (zero bytes)"}
    expected = VIDEO.normalize(torch.from_numpy(VIDEO(film()))[None])
    assert torch.equal(batch["frame_values"][1:2], expected)


def test_a_bad_clip_is_refused_by_row_or_weighs_nothing():
    rows = rows_of([b"", b""], [None, film()], ["a", "b"])
    with pytest.raises(ValueError, match=r"1 audio cell cannot be read: row 'a'"):
        dataset_of(rows)[0]
    data = dataset_of(rows, on_bad_image="ignore")
    assert [data[i][0]["weight"] for i in range(2)] == [0.0, 1.0]
    assert data[0][0]["bad_clips"] == {}


def test_hidden_clips_are_as_if_they_had_always_been_missing():
    rows = rows_of([sound(), sound(1)], [film(), film(1)])
    gone = rows_of([None, sound(1)], [film(), None])
    cache, collate = ByteCache(10**6), collate_of(rows)
    whole, without = (
        collate([dataset_of(r, cache=cache)[i] for i in range(2)])[0]
        for r in (rows, gone)
    )
    hidden = collate.hide(whole, torch.tensor([[True, False], [False, True]]))
    assert hidden.keys() == without.keys()
    for name in hidden:
        assert torch.equal(hidden[name], without[name]), name


def test_frames_are_drawn_from_torchs_generator_if_at_all():
    data = dataset_of(rows_of([None], [film()]))
    even = [data[0][0]["video"] for _ in range(2)]
    np.testing.assert_array_equal(*even)
    data.random_frames = True
    torch.manual_seed(0)
    drawn = [data[0][0]["video"] for _ in range(4)]
    assert len({clip.tobytes() for clip in drawn}) > 1
    torch.manual_seed(0)
    np.testing.assert_array_equal(data[0][0]["video"], drawn[0])
    thirds = [clip[:, 0, 0, 0] // 10 for clip in drawn]
    assert all(third.tolist() == [0, 1, 2] for third in thirds)


def test_a_modality_that_nobody_reads_stays_closed():
    rows = rows_of([b"junk"], [film()])
    data = MultimodalDataset(rows, None, None, clips={"video": VIDEO})
    assert data[0][0]["present"] == (True, True)
    assert "audio" not in data[0][0]
