"""Sounds and films made of a few words: each word can be heard or seen."""

import numpy as np
import pytest

from robustmm.datasets.synthesis import (
    FILM_FIELDS,
    GROUNDS,
    PITCHES,
    RATE,
    SOUND_FIELDS,
    make_films,
    make_sounds,
)

SOUND = {"voice": "tone", "pitch": "middle", "glide": "flat", "pace": "steady"}
FILM = {
    "shape": "disc",
    "paint": "red",
    "motion": "across",
    "ground": "night",
    "pace": "quick",
}


def sounds(n=12, **fields):
    words = {name: np.full(n, word) for name, word in (SOUND | fields).items()}
    return make_sounds(words, np.random.default_rng(0)).astype(float) / 32768


def films(n=12, **fields):
    words = {name: np.full(n, word) for name, word in (FILM | fields).items()}
    return make_films(words, np.random.default_rng(0)).astype(float)


def loudest_hertz(sound):
    return np.abs(np.fft.rfft(sound)).argmax() * RATE / len(sound)


def red(film):
    """Where a red thing is: the mean (down, across) of each frame, (6, 2)."""
    covered = film[..., 0] - film[..., 2] > 60
    return np.array([np.argwhere(frame).mean(axis=0) for frame in covered])


@pytest.mark.parametrize("pitch", PITCHES)
def test_the_pitch_of_a_tone(pitch):
    octaves = [
        abs(np.log2(loudest_hertz(s) / PITCHES[pitch])) for s in sounds(pitch=pitch)
    ]
    assert max(octaves) < 0.4
    assert max(octaves) > 0.05


def test_glides_move_the_pitch():
    def change(glide):
        halves = sounds(glide=glide).reshape(12, 2, RATE // 2)
        hertz = [[loudest_hertz(half) for half in clip] for clip in halves]
        return np.log2([last / first for first, last in hertz])

    assert (change("rising") > 0.2).all()
    assert (change("falling") < -0.2).all()
    assert np.abs(change("flat")).max() < 0.1


def test_the_pace_is_heard_and_seen():
    def swings(pace):
        energy = (sounds(pace=pace) ** 2).reshape(12, 100, -1).mean(axis=2)
        return energy.std(axis=1) / energy.mean(axis=1)

    assert (swings("quick") > 3 * swings("steady").max()).all()
    across = {
        pace: np.ptp(red(films(1, pace=pace)[0])[:, 1]) for pace in ("slow", "quick")
    }
    assert across["quick"] > across["slow"] + 2


def test_motions():
    up = red(films(1, motion="upward")[0])
    assert up[0, 0] - up[-1, 0] > 10
    assert np.ptp(up[:, 1]) < 2
    assert np.ptp(red(films(1, motion="around")[0]), axis=0).min() > 4
    sizes = (films(motion="swelling")[..., 0] > 120).sum(axis=(2, 3))
    assert (sizes[:, -1] > 2 * sizes[:, 0]).all()


def test_shapes_cover_differently():
    area = {s: (films(30, shape=s)[..., 0] > 120).mean() for s in FILM_FIELDS["shape"]}
    assert area["box"] > area["disc"] > area["ring"]
    assert len({round(value, 3) for value in area.values()}) == 5


def test_grounds_are_seen_at_the_rim():
    for name, colour in GROUNDS.items():
        rim = films(ground=name)[:, :, 0].mean(axis=(0, 1, 2))
        np.testing.assert_allclose(rim, np.clip(colour, 0, 250), atol=16)


def test_all_words_make_sounds_and_films():
    rng = np.random.default_rng(0)
    for fields, make in ((SOUND_FIELDS, make_sounds), (FILM_FIELDS, make_films)):
        words = {name: rng.choice(list(values), 60) for name, values in fields.items()}
        made = make(words, rng)
        assert len(made) == 60
        assert (made.reshape(60, -1).std(axis=1) > 0).all()
        assert len(np.unique(made.reshape(60, -1)[:, ::7], axis=0)) == 60
