import pytest

from robustmm.datasets import load_kinetics_sound
from robustmm.datasets.kinetics_sound import KINETICS_SOUND_CLASSES


@pytest.fixture
def root(tmp_path):
    for path in (
        "train/playing organ/a_000001_000011.mp4",
        "train/playing organ/notes.txt",
        "train/tap_dancing/b_000020_000030.webm",
        "train/abseiling/c_000001_000011.mp4",
        "val/tickling/d_000007_000017.mp4",
    ):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path


def test_the_classes():
    assert len(set(KINETICS_SOUND_CLASSES)) == 31
    assert "playing bass guitar" in KINETICS_SOUND_CLASSES


def test_folders_of_classes(root):
    X, y = load_kinetics_sound(root)
    assert y.tolist() == ["playing organ", "tap dancing"]
    assert X.index.tolist() == ["a_000001_000011", "b_000020_000030"]
    assert X["audio"].tolist() == X["video"].tolist()
    assert "abseiling" in set(load_kinetics_sound(root, classes=None)[1])
    assert load_kinetics_sound(root, "val")[1].tolist() == ["tickling"]


def test_a_list_of_paths(root):
    listing = root / "list.csv"
    listing.write_text("path,label\nval/tickling/d_000007_000017.mp4,tickling\n")
    X, y = load_kinetics_sound(root, listing=listing)
    assert X["video"].iloc[0].endswith("d_000007_000017.mp4")
    assert y.tolist() == ["tickling"]


def test_kinetics_own_list(root):
    listing = root / "train.csv"
    listing.write_text(
        "label,youtube_id,time_start,time_end,split\n"
        "playing organ,a,1,11,train\n"
        "tickling,d,7,17,val\n"
        "tap dancing,b,20,30,train\n"
    )
    with pytest.raises(FileNotFoundError, match="1 clips of Kinetics-Sound"):
        load_kinetics_sound(root, listing=listing)
    X, y = load_kinetics_sound(root, listing=listing, on_missing_clip="missing")
    assert y.tolist() == ["playing organ", "tap dancing"]
    # The file there is no MP4.
    assert X["video"].isna().tolist() == [False, True]


def test_what_is_not_there(root):
    with pytest.raises(FileNotFoundError, match=r"needs .*test, which is not there"):
        load_kinetics_sound(root, "test")
    with pytest.raises(ValueError, match="got none of the classes"):
        load_kinetics_sound(root, classes=["yodelling"])
    with pytest.raises(ValueError, match="split must be one of"):
        load_kinetics_sound(root, "dev")
    (root / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"must have the columns .* got \['a', 'b'\]"):
        load_kinetics_sound(root, listing=root / "bad.csv")
