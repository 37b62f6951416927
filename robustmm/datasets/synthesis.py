"""Sounds of a second and films of six frames, made from a few words each."""

from collections.abc import Mapping

import numpy as np

RATE = 16_000
N_FRAMES, SIDE = 6, 32
VOICES = ("hum", "tone", "chime", "hiss")
# Hertz; each clip moves its own by up to a third of an octave.
PITCHES = {"low": 160.0, "middle": 480.0, "high": 1440.0}
GLIDES = ("flat", "rising", "falling", "wavering")
# Beats a second of the sound; the film moves by it too.
PACES = {"steady": 0.0, "slow": 2.0, "quick": 6.0}
SHAPES = ("disc", "box", "cross", "ring", "diamond")
PAINTS = {
    "red": (205, 45, 45),
    "yellow": (245, 215, 60),
    "white": (248, 248, 248),
    "purple": (130, 60, 160),
    "green": (40, 140, 70),
    "blue": (50, 90, 200),
}
MOTIONS = ("across", "upward", "around", "swelling")
GROUNDS = {
    "night": (35, 40, 75),
    "snow": (225, 228, 235),
    "sand": (225, 200, 140),
    "grass": (95, 160, 75),
    "street": (125, 125, 130),
}
SOUND_FIELDS = {"voice": VOICES, "pitch": PITCHES, "glide": GLIDES, "pace": PACES}
FILM_FIELDS = {
    "shape": SHAPES,
    "paint": PAINTS,
    "motion": MOTIONS,
    "ground": GROUNDS,
    "pace": PACES,
}
# How far a thing moves from the middle, in pixels, by the pace of the clip.
_WAYS = {"steady": 4.0, "slow": 7.0, "quick": 10.0}
# Clips at a time, so that the temporaries stay in the processor's cache.
_AT_ONCE = 32


def make_sounds(
    fields: Mapping[str, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Return sounds of a second at 16 kHz: int16, shape (n, 16000).

    Parameters
    ----------
    fields : mapping of str to ndarray of str, shape (n,)
        Of each clip the ``voice``, ``pitch``, ``glide`` and ``pace``.
    rng : Generator
        For what differs from clip to clip: pitch, phase, loudness and noise.

    Examples
    --------
    >>> fields = {"voice": ["hum"], "pitch": ["low"], "glide": ["flat"]}
    >>> fields |= {"pace": ["slow"]}
    >>> fields = {name: np.array(value) for name, value in fields.items()}
    >>> make_sounds(fields, np.random.default_rng(0)).shape
    (1, 16000)
    """
    n = len(fields["voice"])
    sounds = np.empty((n, RATE), dtype=np.int16)
    for start in range(0, n, _AT_ONCE):
        part = {name: fields[name][start : start + _AT_ONCE] for name in SOUND_FIELDS}
        sounds[start : start + _AT_ONCE] = _sounds(part, rng)
    return sounds


def _sounds(fields: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    n = len(fields["voice"])
    time = np.arange(RATE, dtype=np.float32) / RATE
    pitch = np.array([PITCHES[name] for name in fields["pitch"]])
    pitch = (pitch * 2 ** rng.uniform(-1 / 3, 1 / 3, n)).astype(np.float32)
    course = _courses(time)[[GLIDES.index(name) for name in fields["glide"]]]
    phase = 2 * np.pi * pitch[:, None] * course  # (n, 16000)
    beats = np.array([PACES[name] for name in fields["pace"]], dtype=np.float32)
    swing = np.sin(2 * np.pi * (beats[:, None] * time + _uniform(rng, 0, 1, n)))
    gate = np.where(beats[:, None] > 0, np.clip(0.5 + 2 * swing, 0, 1), 1)
    noise = rng.standard_normal((n, RATE), dtype=np.float32)
    voices = np.empty_like(phase)
    for voice in VOICES:
        rows = fields["voice"] == voice
        voices[rows] = _voiced(voice, phase[rows], noise[rows], time)
    values = _uniform(rng, 0.2, 0.7, n) * voices * gate
    values += _uniform(rng, 0.01, 0.12, n) * noise
    return (np.clip(values, -1, 1) * 32767).astype(np.int16)


def _courses(time: np.ndarray) -> np.ndarray:
    """Cycles of a tone of 1 Hz until each moment, by glide: float32, (4, 16000)."""
    speeds = (
        np.ones_like(time),
        2 ** (1.2 * time - 0.6),
        2 ** (0.6 - 1.2 * time),
        1 + 0.12 * np.sin(2 * np.pi * 7 * time),
    )
    return (np.cumsum(speeds, axis=1) / RATE).astype(np.float32)


def _voiced(
    voice: str, phase: np.ndarray, noise: np.ndarray, time: np.ndarray
) -> np.ndarray:
    if voice == "hum":
        return sum(np.sin(k * phase) / k for k in (1, 2, 3, 4)) / 2
    if voice == "tone":
        return np.sin(phase)
    if voice == "chime":
        partials = np.sin(phase) + 0.6 * np.sin(2.76 * phase)
        # Struck four times a second, and dying away.
        return partials * np.exp(-8 * (time % 0.25)).astype(np.float32)
    # A hiss around the pitch: slow noise on a carrier.
    slow = noise.reshape(len(noise), RATE // 20, 20).mean(axis=2).repeat(20, axis=1)
    return 3 * slow * np.sin(phase)


def make_films(
    fields: Mapping[str, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Return films of six frames of 32 x 32 pixels: uint8, shape (n, 6, 32, 32, 3).

    Parameters
    ----------
    fields : mapping of str to ndarray of str, shape (n,)
        Of each clip the ``shape``, ``paint``, ``motion``, ``ground`` and ``pace``.
    rng : Generator
        For what differs from clip to clip: place, size, shades and noise.

    Examples
    --------
    >>> fields = {"shape": ["disc"], "paint": ["red"], "motion": ["around"]}
    >>> fields |= {"ground": ["snow"], "pace": ["quick"]}
    >>> fields = {name: np.array(value) for name, value in fields.items()}
    >>> make_films(fields, np.random.default_rng(0)).shape
    (1, 6, 32, 32, 3)
    """
    n = len(fields["shape"])
    across, down, radius = _paths(fields, n, rng)
    grid = np.arange(SIDE, dtype=np.float32)
    x = grid - across[..., None, None]  # (n, 6, 1, 32)
    y = grid[:, None] - down[..., None, None]  # (n, 6, 32, 1)
    size = radius[..., None, None]
    inside = np.zeros((n, N_FRAMES, SIDE, SIDE), dtype=bool)
    for shape in SHAPES:
        rows = fields["shape"] == shape
        inside[rows] = _covered(shape, x[rows], y[rows], size[rows])
    ground, paint = (
        _shades(table, fields[name], rng)
        for table, name in ((GROUNDS, "ground"), (PAINTS, "paint"))
    )
    films = np.where(inside[..., None], paint, ground)  # (n, 6, 32, 32, 3)
    # A few levels of grey noise: what an 8-bit camera adds in bad light.
    noise = rng.integers(-18, 19, (n, N_FRAMES, SIDE, SIDE, 1), dtype=np.int16)
    return (films + noise).clip(0, 255).astype(np.uint8)


def _paths(
    fields: Mapping[str, np.ndarray], n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the middle (across, down) and the radius in each frame, (n, 6) each."""
    along = np.linspace(-1, 1, N_FRAMES, dtype=np.float32)
    way = np.array([_WAYS[name] for name in fields["pace"]], dtype=np.float32)[:, None]
    turn = np.pi * (along + _uniform(rng, -1, 1, n))
    side = rng.choice(np.array([-1, 1], dtype=np.float32), (n, 1))
    is_ = {name: (fields["motion"] == name)[:, None] for name in MOTIONS}
    middle = SIDE / 2 + _uniform(rng, -3, 3, n), SIDE / 2 + _uniform(rng, -3, 3, n)
    across = middle[0] + is_["across"] * side * way * along
    across = across + is_["around"] * way * np.cos(turn)
    down = middle[1] - is_["upward"] * way * along
    down = down + is_["around"] * way * np.sin(turn)
    radius = _uniform(rng, 5, 8, n) + is_["swelling"] * way / 2 * along
    return across, down, radius


def _covered(shape: str, x: np.ndarray, y: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Tell which pixels a thing covers, (n, 6, 32, 32)."""
    if shape in ("disc", "ring"):
        far = x**2 + y**2
        whole = far < size**2
        return whole if shape == "disc" else whole & (far > (0.55 * size) ** 2)
    x, y = np.abs(x), np.abs(y)
    if shape == "diamond":
        return x + y < 1.2 * size
    box = np.maximum(x, y) < 0.9 * size
    return box if shape == "box" else box & (np.minimum(x, y) < size / 3)


def _shades(
    table: Mapping[str, tuple], names: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return a colour for each clip, a little off, (n, 1, 1, 1, 3)."""
    colours = np.array([table[name] for name in names], dtype=np.int16)
    shift = rng.integers(-14, 15, (len(names), 1)) + rng.integers(-6, 7, colours.shape)
    return (colours + shift).astype(np.int16)[:, None, None, None]


def _uniform(rng: np.random.Generator, low: float, high: float, n: int) -> np.ndarray:
    return rng.uniform(low, high, (n, 1)).astype(np.float32)
