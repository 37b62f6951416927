"""Small files of sound and film, made on the spot."""

import struct
from io import BytesIO

import numpy as np

RATE = 8000


def tone(seconds=0.5, rate=RATE, pitch=440.0):
    """Return a sine of half the range: float32, (n,)."""
    time = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def sound_bytes(samples, rate=RATE, format="WAV", subtype=None):
    """Return a file of sound."""
    import soundfile

    stream = BytesIO()
    soundfile.write(stream, samples, rate, format=format, subtype=subtype)
    return stream.getvalue()


def shades(n, size=(24, 32)):
    """Return n frames, each of one grey that tells its place: uint8, (n, H, W, 3)."""
    greys = np.linspace(20, 220, n).astype(np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (n, *size, 3)).copy()


def film_bytes(frames, format="mp4", codec="mpeg4", sound=None):
    """Return a film of frames (n, H, W, 3), with mono sound (rate, samples) or without.

    A film without frames has a sound track alone.
    """
    import av

    stream = BytesIO()
    with av.open(stream, "w", format=format) as film:
        track, voice = None, None
        if len(frames):
            track = film.add_stream(codec, rate=25)
            track.height, track.width = frames.shape[1:3]
            track.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        if sound is not None:
            voice = film.add_stream("aac" if format == "mp4" else "mp3", rate=sound[0])
            voice.layout = "mono"
        for picture in frames:
            film.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if track is not None:
            film.mux(track.encode())
        if sound is not None:
            heard = av.AudioFrame.from_ndarray(
                sound[1][None], format="fltp", layout="mono"
            )
            heard.sample_rate = sound[0]
            film.mux(voice.encode(heard))
            film.mux(voice.encode())
    return stream.getvalue()


def turned(film):
    """Return an MP4 file that is to be shown turned clockwise, as phones write them."""
    one, none = struct.pack(">i", 2**16), bytes(4)
    upright = one + 3 * none + one
    # Of the film itself first, then of its track.
    place = film.rindex(upright)
    return (
        film[:place]
        + none
        + one
        + none
        + struct.pack(">i", -(2**16))
        + none
        + (film[place + len(upright) :])
    )
