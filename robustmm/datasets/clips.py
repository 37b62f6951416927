"""Clips of sound and moving pictures, made on the spot."""

from numbers import Real

import numpy as np
import pandas as pd

from ..checks import check_choice, check_number
from ..missingness import missing_table
from ._arguments import check_int, generator
from .synthesis import FILM_FIELDS, RATE, SOUND_FIELDS, make_films, make_sounds

SCENARIOS = ("audio", "video", "both")
# What each class prefers: voice, pitch, glide | pace | shape, paint, motion, ground.
_EVENTS = {
    "siren": "tone|high middle|wavering|slow|disc ring|red blue|around|night street",
    "engine": "hum|low|flat rising|steady|box|yellow white|across|street grass",
    "bell": "chime|high|flat|slow|diamond|yellow|swelling|snow night",
    "bird": "tone chime|high|rising wavering|quick|cross|blue green|upward|grass",
    "drum": "hiss hum|low|falling|quick|disc|red purple|swelling|sand",
    "kettle": "hiss tone|high middle|rising|steady|ring|white green|upward|snow",
    "waves": "hiss|low middle|wavering falling|slow|diamond box|blue|across|sand",
    "horn": "hum|middle|flat falling|slow quick|cross ring|purple|around|street",
}
_FIELDS = {
    **{name: SOUND_FIELDS[name] for name in ("voice", "pitch", "glide", "pace")},
    **{name: FILM_FIELDS[name] for name in ("shape", "paint", "motion", "ground")},
}
# How often a field takes one of the values that its class prefers.
_LOYALTY = dict(zip(_FIELDS, (0.6, 0.6, 0.65, 0.5, 0.5, 0.45, 0.5, 0.5), strict=True))


def make_clips(
    n_samples: int = 1000,
    n_classes: int = 6,
    random_state=None,
    *,
    missing_rate: float = 0.0,
    scenario: str = "both",
) -> tuple[pd.DataFrame, pd.Series]:
    """Make synthetic clips of sound and moving pictures, labelled by what happens.

    A synthetic test bed for missing modalities, as :func:`make_scenes` is of pictures
    and texts. A class is a list of preferred values for the voice, the pitch and the
    glide of a sound, for the shape, the paint, the motion and the ground of a film, and
    for the pace, which both show. Each is drawn from the preferred values of the class
    about every second time, and from all values otherwise. So the two share a part of
    what there is, and each knows more.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of rows, at least `n_classes`. The classes are as balanced as they can
        be and in random order.
    n_classes : int, default=6
        Number of classes, from 2 to 8, taken in this order: siren, engine, bell, bird,
        drum, kettle, waves, horn.
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None
        An int gives the same rows at every call; None gives new ones. The global
        generators are neither read nor changed.
    missing_rate : float in [0, 1], default=0
        The share of rows that lose a modality, exactly ``int(n * rate)`` of them.
    scenario : {"audio", "video", "both"}, default="both"
        The modality that is *missing*; of ``"both"``, half of the rows lose the sound
        and the others the film, and none loses the two.

    Returns
    -------
    df : pandas.DataFrame of shape (n_samples, 2)
        Column "audio" holds ``(16000, samples)`` with one second of int16, column
        "video" uint8 arrays of six frames, (6, 32, 32, 3); None where missing.
    y : pandas.Series of shape (n_samples,)
        The class names, named "label", with the index of `df`.

    Raises
    ------
    ValueError
        If a number is not in its range, or `scenario` is unknown.

    Examples
    --------
    >>> from robustmm.datasets import make_clips
    >>> df, y = make_clips(20, n_classes=3, random_state=0, missing_rate=0.5)
    >>> df.notna().sum().to_dict()
    {'audio': 15, 'video': 15}
    >>> rate, samples = df["audio"].dropna().iloc[0]
    >>> rate, samples.shape, df["video"].dropna().iloc[0].shape
    (16000, (16000,), (6, 32, 32, 3))
    """
    check_int("n_classes", n_classes, 2, len(_EVENTS))
    check_int("n_samples", n_samples, n_classes, np.inf)
    # Before the work, which takes some seconds.
    check_number("missing_rate", missing_rate, Real, 0, 1)
    check_choice("scenario", scenario, SCENARIOS)
    rng = generator(random_state)
    names = np.array(list(_EVENTS)[:n_classes])
    labels = names[rng.permutation(np.arange(n_samples) % n_classes)]
    fields = _draw_fields(labels, rng)
    sounds, films = make_sounds(fields, rng), make_films(fields, rng)
    cells = {"audio": [(RATE, sound) for sound in sounds], "video": list(films)}
    # Of missing-aware prompts' table: 1 is the text's code, 2 the image's.
    absent = {"audio": "text", "video": "image"}.get(scenario, scenario)
    table = missing_table(n_samples, missing_rate, absent, rng)
    df = pd.DataFrame(
        {
            name: [
                None if lost == code else cell
                for lost, cell in zip(table, of, strict=True)
            ]
            for code, (name, of) in enumerate(cells.items(), start=1)
        },
        dtype=object,
    )
    return df, pd.Series(labels.tolist(), index=df.index, name="label")


def _draw_fields(labels: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return what each clip shows, an array of names for each field."""
    n, fields = len(labels), {}
    likes = {
        label: dict(zip(_FIELDS, map(str.split, words.split("|")), strict=True))
        for label, words in _EVENTS.items()
    }
    for name, values in _FIELDS.items():
        drawn = rng.choice(list(values), n)
        liked = np.empty(n, dtype=drawn.dtype)
        for label in likes:
            rows = labels == label
            liked[rows] = rng.choice(likes[label][name], rows.sum())
        loyal = rng.random(n) < _LOYALTY[name]
        fields[name] = np.where(loyal, liked, drawn)
    return fields
