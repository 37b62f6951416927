"""Members that are scikit-learn's: known types alone, and no surprise in size."""

import io
import sys
import zipfile

import numpy as np
import pytest
from ensemble_cases import First, texts
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from robustmm import LinearProbeClassifier
from robustmm.persistence.foreign import dump_foreign, load_foreign
from robustmm.persistence.tree import Member, dump_tree

X, Y = np.arange(8.0).reshape(4, 2), [0, 1, 0, 1]


def as_array(content):
    return np.frombuffer(content, dtype=np.uint8)


def test_a_pipeline_comes_back():
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    again = load_foreign(as_array(dump_foreign(pipeline)))
    np.testing.assert_array_equal(again.predict_proba(X), pipeline.predict_proba(X))


def test_a_type_of_somebody_else_is_neither_written_nor_opened(monkeypatch):
    own = First().fit(*texts(9))
    with pytest.raises(TypeError, match=r"First with \['ensemble_cases.First'\]"):
        dump_foreign(own)
    import skops.io

    content = skops.io.dumps(own)
    with pytest.raises(ValueError, match=r"not opened.*First"):
        load_foreign(as_array(content))


def test_a_small_file_cannot_ask_for_any_memory():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", "0" * 100_000)
    with pytest.raises(ValueError, match="must not be compressed, got 100000 bytes"):
        load_foreign(as_array(packed.getvalue()))


@pytest.mark.parametrize("content", [b"", b"PK", b"\x00" * 100])
def test_what_is_no_archive_is_refused(content):
    with pytest.raises(ValueError, match="not opened"):
        load_foreign(as_array(content))


def test_a_member_has_no_members():
    inside = make_pipeline(
        StandardScaler(), LinearProbeClassifier("robustmm/tiny-clip")
    )
    with pytest.raises(TypeError, match=r"Pipeline with \['LinearProbeClassifier'\]"):
        dump_foreign(inside)
    place = make_pipeline(StandardScaler(), Member("0"))
    with pytest.raises(ValueError, match="must not have places"):
        load_foreign(as_array(dump_tree(place)))


def test_without_skops_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ImportError, match="pip install"):
        dump_foreign(LogisticRegression().fit(X, Y))
