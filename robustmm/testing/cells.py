"""Checks of what comes in: cells, columns, rows with nothing in them."""

import base64
import copy
import io
import tempfile
import wave
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..data.frame import MODALITIES, is_null
from .subject import (
    Subject,
    applies_if,
    must_raise,
    must_warn,
    needs,
    require,
    require_equal,
)

NULLS = {"None": None, "nan": float("nan"), "pd.NA": pd.NA, "pd.NaT": pd.NaT}
CELLS = ("PIL image", "array", "bytes", "base64", "dict", "str", "Path")
CLIPS = ("pair and array", "bytes and list", "dict and pictures", "path and list")
# Other routes to the same pixels end in the same predictions, up to rounding.
ROUNDING = 1e-5


def noise_image(seed: int = 0, size: tuple[int, int] = (20, 30)) -> Image.Image:
    """Return a picture of random pixels, of (height, width)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def as_cell(image: Image.Image, kind: str, folder: Path):
    """Return the same picture as one of ``CELLS``; files are made in ``folder``."""
    if kind == "PIL image":
        return image
    if kind == "array":
        return np.asarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = buffer.getvalue()
    encoded = {"base64": base64.b64encode(data).decode(), "bytes": data}
    encoded["dict"] = {"bytes": data, "path": None}
    if kind in encoded:
        return encoded[kind]
    path = Path(folder, f"{len(list(Path(folder).iterdir()))}.png")
    path.write_bytes(data)
    return str(path) if kind == "str" else path


def as_clips(sound: tuple, film: np.ndarray, kind: str, folder: Path) -> tuple:
    """Return the same sound and frames as one of ``CLIPS``; files are in ``folder``."""
    rate, samples = sound
    if kind == "pair and array":
        return sound, film
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    data = buffer.getvalue()
    if kind == "bytes and list":
        return data, list(film)
    if kind == "dict and pictures":
        held = {"array": samples, "sampling_rate": rate}
        return held, [Image.fromarray(frame) for frame in film]
    path = Path(folder, f"{len(list(Path(folder).iterdir()))}.wav")
    path.write_bytes(data)
    return str(path), [as_cell(Image.fromarray(f), "bytes", folder) for f in film]


def _any_null_with_any_clip(subject: Subject) -> None:
    nulls, n = list(NULLS.values()), len(NULLS)
    X, _ = subject.table(3 * n)
    complete = X[X.notna().all(axis=1)]
    sounds, films = (list(complete[name]) for name in subject.columns.values())

    def frame(sounds: list, films: list) -> pd.DataFrame:
        pairs = zip(subject.columns.values(), (sounds, films), strict=True)
        cells = {name: pd.Series(cells, dtype=object) for name, cells in pairs}
        return pd.DataFrame(cells)

    nothing = [None] * n
    expected = frame(nothing + sounds, films + nothing)
    expected = subject.fitted.decision_function(expected)
    with tempfile.TemporaryDirectory() as folder:
        for kind in CLIPS:
            pairs = zip(sounds, films, strict=True)
            clips = [as_clips(*pair, kind, folder) for pair in pairs]
            heard, seen = map(list, zip(*clips, strict=True))
            require_equal(
                subject.fitted.decision_function(frame(nulls + heard, seen + nulls)),
                expected,
                f"{list(NULLS)} must mean missing cells, beside clips of type {kind}",
                atol=ROUNDING,
            )


def check_any_null_with_any_cell(subject: Subject) -> None:
    """Every null means a missing cell in ``predict``, whatever the other cells are."""
    if subject.modalities == ("audio", "video"):
        _any_null_with_any_clip(subject)
    if subject.modalities != MODALITIES:
        return
    nulls, n = list(NULLS.values()), len(NULLS)
    pictures = [noise_image(i) for i in range(n + 2)]
    images, texts = [None] * n + pictures, ["a hill"] * n + [None] * (n + 2)
    columns = subject.table(6)[0].columns

    def frame(images: list, texts: list) -> pd.DataFrame:
        return pd.DataFrame(
            dict(zip(columns, (images, texts), strict=True)), dtype=object
        )

    expected = subject.fitted.decision_function(frame(images, texts))
    with tempfile.TemporaryDirectory() as folder:
        for kind in CELLS:
            cells = [as_cell(picture, kind, folder) for picture in pictures]
            other = frame(nulls + cells, texts[:n] + nulls + ["", " \n"])
            require_equal(
                subject.fitted.decision_function(other),
                expected,
                f"{list(NULLS)} and blank texts must mean missing cells, beside image "
                f"cells of type {kind}",
                atol=ROUNDING,
            )


def check_fit_takes_any_null(subject: Subject) -> None:
    """Every null means a missing cell in ``fit``."""
    X, y = subject.table()
    where = np.argwhere(X.isna().to_numpy())
    nulls = [*NULLS.values(), None]
    for i, (row, column) in enumerate(where):
        # Blank texts as well, which only the text column may have.
        is_text = subject.modalities[column] == "text"
        null = nulls[i % len(nulls)]
        X.iat[row, column] = " \t" if is_text and i % 5 == 0 else null
    require_equal(
        subject.fresh().fit(X, y).decision_function(X),
        subject.fitted.decision_function(X),
        "fit must read None, NaN, pd.NA, pd.NaT and blank texts alike",
        atol=ROUNDING,
    )


@applies_if(lambda subject: subject.modalities == MODALITIES)
def check_text_of_any_dtype(subject: Subject) -> None:
    """The dtype of the text column makes no difference."""
    X, _ = subject.table()
    expected = subject.fitted.decision_function(X)
    for dtype in ("str", "string", "category"):
        other = X.astype({X.columns[1]: dtype})
        # Before pandas 3, "str" makes texts of the missing cells: another table.
        if not other.isna().equals(X.isna()):
            continue
        require_equal(
            subject.fitted.decision_function(other),
            expected,
            f"A text column of dtype {dtype!r} must be read like one of objects",
        )


def check_a_whole_column_may_be_missing(subject: Subject) -> None:
    """Tables of images only, and of texts only, are legal."""
    for column in range(len(subject.modalities)):
        X, y = subject.table()
        here = X.drop(columns=X.columns[column]).notna().any(axis=1).to_numpy()
        X, y = X[here], y[here]
        X.iloc[:, column] = None
        proba = subject.fresh().fit(X, y).predict_proba(X)
        name = X.columns[column]
        rule = f"A table whose column {name!r} is missing throughout must be legal"
        require(np.isfinite(proba).all(), f"{rule}, predict_proba is not finite.")


def check_array_is_read_by_position(subject: Subject) -> None:
    """An object array of two columns is read as image, text."""
    X, y = subject.table()
    array = X.to_numpy(dtype=object)
    require_equal(
        subject.fresh().fit(array, y).decision_function(array),
        subject.fitted.decision_function(X),
        "An object array of two columns must be read as image, text",
        atol=ROUNDING,
    )


def check_other_columns_are_ignored(subject: Subject) -> None:
    """Columns that are neither image nor text make no difference."""
    X, y = subject.table()
    others = {"price": np.arange(float(len(X))), "tags": [["a"]] * len(X)}
    # In front and behind, so that reading by position would be found out.
    wider = X.assign(**others)[["price", *X, "tags"]]
    require_equal(
        subject.fresh().fit(wider, y).decision_function(wider),
        subject.fitted.decision_function(X),
        "Columns other than image and text must be ignored",
        atol=ROUNDING,
    )


def check_two_columns_suffice(subject: Subject) -> None:
    """``predict`` needs the two columns, in any order, whatever ``fit`` has seen."""
    X, y = subject.table()
    wider = X.assign(price=np.arange(float(len(X))))
    rule = "Other columns must make no difference, nor the order of the two"
    expected, reverse = subject.fitted.decision_function(X), X.columns[::-1]
    given = subject.fresh().fit(wider, y), subject.fitted
    tables = X[reverse], wider[["price", *reverse]]
    for estimator, table in zip(given, tables, strict=True):
        found = estimator.decision_function(table)
        require_equal(found, expected, rule, atol=ROUNDING)
        require_equal(estimator.feature_names_in_, list(X), "They are the features")


def check_records_are_read_like_a_table(subject: Subject) -> None:
    """Dicts of a list, and a dict or Series for one row, are read as the frame is."""
    X, _ = subject.table(6)
    records = [dict(row) for _, row in X.astype(object).iterrows()]
    lacking = [{k: v for k, v in row.items() if not is_null(v)} for row in records]
    expected = subject.fitted.predict_proba(X)
    rule = "A list of dicts must be read as its frame"
    for rows in (records, lacking):
        found = subject.fitted.predict_proba(rows)
        require_equal(found, expected, rule, atol=ROUNDING)
    rule = "A dict and a Series must be read as one row"
    for row in (records[0], X.iloc[0]):
        found = subject.fitted.predict_proba(row)
        require_equal(found, expected[:1], rule, atol=ROUNDING)


def check_wrong_columns_are_named(subject: Subject) -> None:
    """A missing or renamed column is an error that names it."""
    X, y = subject.table(6)
    name = X.columns[0]
    renamed = X.rename(columns={name: "robustmm_other"})
    with must_raise(ValueError, name, f"fit must name the absent column {name!r}"):
        subject.fresh().fit(renamed, y)
    rule = "predict must say which columns there are where one is absent"
    with must_raise(ValueError, "robustmm_other", rule):
        subject.fitted.predict(renamed)


def check_empty_table_is_refused(subject: Subject) -> None:
    """``fit`` and ``predict`` need a row."""
    X, y = subject.table(6)
    message = "minimum of 1 is required"
    with must_raise(ValueError, message, "fit must refuse a table without rows"):
        subject.fresh().fit(X.iloc[:0], y[:0])
    with must_raise(ValueError, message, "predict must refuse a table without rows"):
        subject.fitted.predict(X.iloc[:0])


def check_rows_without_any_modality_get_the_prior(subject: Subject) -> None:
    """Such rows count in the prior, are predicted as the prior, and are warned of."""
    X, y = subject.table(12)
    X.iloc[:4] = None
    # Makes the prior uneven, or a prediction of one half would pass.
    y[:4] = y[5]
    message = f"4 of 12 rows have neither {' nor '.join(subject.modalities)}"
    with must_warn("fit must warn of rows with neither image nor text", message):
        estimator = subject.fresh().fit(X, y)
    frequency = np.unique(y, return_counts=True)[1] / len(y)
    rule = "class_prior_ must be the frequencies of all rows"
    require_equal(estimator.class_prior_, frequency, rule, atol=1e-12)
    with must_warn("predict must warn of rows with neither image nor text", message):
        proba = estimator.predict_proba(X)
    rule = "A row with neither image nor text must be predicted as class_prior_"
    require_equal(proba[:4], np.tile(frequency, (4, 1)), rule, atol=1e-9)


def check_no_modality_at_all_is_an_error(subject: Subject) -> None:
    """``fit`` needs a row with something in it."""
    X, y = subject.table(6)
    X.iloc[:] = None
    rule = "fit must refuse a table in which all cells are missing"
    with must_raise(ValueError, "At least one row must have", rule):
        subject.fresh().fit(X, y)


@needs("on_bad_image")
def check_bad_images_are_listed_by_row(subject: Subject) -> None:
    """Images that cannot be read are an error, or missing with a warning."""
    X, y = subject.table(12)
    X.iloc[2, 0], X.iloc[5, 0] = b"not a picture", "nowhere.png"
    modality = subject.modalities[0]
    message = f"2 {modality} cells.*'row2'.*'row5'"
    with must_raise(ValueError, message, "fit must list unreadable images by row"):
        subject.fresh(on_bad_image="raise").fit(X, y)
    # A shallow copy shares the fitted net: the other checks keep theirs.
    fitted = copy.copy(subject.fitted).set_params(on_bad_image="raise")
    with must_raise(ValueError, message, "predict must list unreadable images by row"):
        fitted.predict(X)
    estimator = subject.fresh(on_bad_image="missing")
    with must_warn("fit must warn of images that it takes as missing", message):
        estimator.fit(X, y)
    name = "bad_images" if modality == "image" else f"bad_{modality}"
    noted = set(estimator.missing_report_[name])
    require(noted == {"row2", "row5"}, f"missing_report_ must name them, got {noted}.")
    with must_warn("predict must warn of images that it takes as missing", message):
        estimator.predict(X)


def _are_same(a, b) -> bool:
    # Identity first: NaN is not equal to itself.
    if a is b or (is_null(a) and is_null(b)):
        return True
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_are_same, a, b))
    return bool(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b)


def check_inputs_are_not_changed(subject: Subject) -> None:
    """``fit`` and ``predict`` leave table, labels and weights as they were."""
    seen, (X, y) = subject.observed, subject.table()
    seen.estimator.predict(seen.X)
    same = all(
        _are_same(a, b)
        for column in X
        for a, b in zip(X[column], seen.X[column], strict=True)
    )
    same = same and X.index.equals(seen.X.index) and list(X) == list(seen.X)
    require(same, "fit and predict must not change the table.")
    require_equal(seen.y, y, "fit must not change the labels")
    require_equal(seen.weights, np.ones(len(X)), "fit must not change the weights")
