"""Image files that are damaged or replaced after the rows were screened."""

import numpy as np
import pandas as pd
import pytest
import torch
from contract import frame_with_holes, public_classifiers, small
from toys import QuickClassifier

import robustmm.table
from robustmm import LinearProbeClassifier

X, Y = frame_with_holes(16)
# Damaged from the second decoding on: one with a text, one without.
LABELS = {"with a text": 0, "alone": 1}


def write_table(folder):
    """Rows whose images are files; all but the second have a text."""
    pictures = [image for image in X["image"] if image is not None]
    paths = [str(folder / f"{i}.png") for i in range(8)]
    for path, image in zip(paths, pictures, strict=False):
        image.save(path)
    texts = ["a hill", None, "a hall", "a hill", "a hull", "a hall", "a hill", "a hull"]
    index = [*LABELS, *map(str, range(6))]
    columns = {"image": paths, "text": pd.Series(texts, index=index, dtype=object)}
    return pd.DataFrame(columns, index=index), np.array(list("abababab"))


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path)


@pytest.fixture
def damage(monkeypatch):
    """Have two files replaced as soon as all have been decoded once."""
    screen = robustmm.table.find_bad_images

    def screen_and_damage(images, *args):
        found = screen(images, *args)
        for position, path in enumerate(images.rows.images):
            if position in LABELS.values() and path is not None:
                with open(path, "wb") as file:
                    file.write(b"no picture any more")
        return found

    monkeypatch.setattr(robustmm.table, "find_bad_images", screen_and_damage)


RULE = "2 image cells were damaged while training, taken as missing: row 'with a text'"


@pytest.mark.parametrize("cls", public_classifiers(), ids=lambda cls: cls.__name__)
def test_damage_counts_as_missing(cls, table, damage):
    clf = small(cls, on_bad_image="missing", device="cpu")
    with pytest.warns(UserWarning, match=RULE) as caught:
        clf.fit(*table)
    said = [str(warning.message) for warning in caught]
    assert len([text for text in said if "damaged" in text]) == 1
    report = clf.missing_report_
    assert list(report["bad_images"]) == list(LABELS)
    assert "not an image" in report["bad_images"]["alone"]
    assert (report["both_missing"], report["image_missing"]) == (1, 1)
    assert np.isfinite(clf.history_["train_loss"]).all()
    with (
        pytest.warns(UserWarning, match="1 of 8 rows have neither"),
        pytest.warns(UserWarning, match="2 image cells cannot be read"),
    ):
        assert np.isfinite(clf.predict_proba(table[0])).all()


@pytest.mark.parametrize("cls", [QuickClassifier, LinearProbeClassifier])
def test_or_ends_the_fit_with_the_row(cls, table, damage):
    with pytest.raises(ValueError, match=r"row '(alone|with a text)': not an image"):
        small(cls, device="cpu").fit(*table)


def test_damage_before_the_screening_is_kept_in_the_report(table, damage):
    X, y = table
    X.loc["5", "image"] = "nowhere.png"
    clf = QuickClassifier(on_bad_image="missing")
    with (
        pytest.warns(UserWarning, match=RULE),
        pytest.warns(UserWarning, match="1 image cells cannot be read"),
    ):
        clf.fit(X, y)
    assert set(clf.missing_report_["bad_images"]) == {*LABELS, "5"}
    assert clf.missing_report_["image_missing"] == 2


@pytest.mark.parametrize("backbone", ["robustmm/tiny-clip", "robustmm/tiny-vilt"])
def test_a_row_with_nothing_left_trains_nothing(damage, backbone, tmp_path):
    def weights_with(label, position):
        folder = tmp_path / f"{label}{position}"
        folder.mkdir()
        X, y = write_table(folder)
        y[position] = label
        # AdamW's first steps have the same length whatever the gradient.
        plain = {"optimizer": torch.optim.SGD, "lr": 0.1}
        clf = QuickClassifier(backbone, on_bad_image="missing", net_params=plain)
        with pytest.warns(UserWarning, match=RULE):
            clf.fit(X, y)
        return clf.net_.module_.head.weight.detach().numpy()

    alone = [weights_with(label, 1) for label in "ab"]
    np.testing.assert_array_equal(*alone)
    with_a_text = [weights_with(label, 0) for label in "ab"]
    assert np.abs(with_a_text[0] - with_a_text[1]).max() > 1e-4


@pytest.mark.parametrize("num_workers", [0, 1])
def test_damage_is_told_by_workers(table, damage, num_workers):
    net_params = {"iterator_train__num_workers": num_workers}
    clf = QuickClassifier(on_bad_image="missing", net_params=net_params)
    with pytest.warns(UserWarning, match=RULE):
        clf.fit(*table)


def test_held_out_rows_count_too(table, damage):
    clf = QuickClassifier(on_bad_image="missing", early_stopping=True, max_epochs=3)
    with pytest.warns(UserWarning, match=RULE):
        clf.fit(*table)


def test_an_image_encoder_alone(table, damage):
    clf = LinearProbeClassifier("robustmm/tiny-clip", on_bad_image="missing")
    X, y = table
    clf.set_params(text_backbone=None, device="cpu")
    with pytest.warns(UserWarning, match=RULE):
        clf.fit(X.assign(text=None), y)


def test_with_a_checkpoint(table, damage, tmp_path):
    from contract import ToyClassifier

    folder = tmp_path / "checkpoints"
    folder.mkdir()
    clf = small(ToyClassifier, on_bad_image="missing", checkpoint_dir=folder)
    with pytest.warns(UserWarning, match=RULE):
        clf.fit(*table)
    assert not list(folder.iterdir())
