import pytest

from robustmm.datasets import load_crema_d
from robustmm.datasets.crema_d import BAD

CLIPS = ["1001_DFA_ANG_XX", "1010_IEO_HAP_HI", "1015_TAI_NEU_XX", "1091_WSI_SAD_XX"]


@pytest.fixture
def root(tmp_path):
    for folder, suffix in (("AudioWAV", "wav"), ("VideoFlash", "flv")):
        (tmp_path / folder).mkdir()
        for clip in (*CLIPS, *BAD, "notes"):
            (tmp_path / folder / f"{clip}.{suffix}").touch()
    return tmp_path


def test_no_actor_is_on_two_sides(root):
    X, y = load_crema_d(root)
    assert X.index.tolist() == ["1001_DFA_ANG_XX", "1091_WSI_SAD_XX"]
    assert y.tolist() == ["anger", "sadness"]
    assert X["audio"].iloc[0] == str(root / "AudioWAV" / "1001_DFA_ANG_XX.wav")
    assert X["video"].iloc[0] == str(root / "VideoFlash" / "1001_DFA_ANG_XX.flv")
    assert load_crema_d(root, "test")[1].to_dict() == {"1010_IEO_HAP_HI": "happiness"}
    assert load_crema_d(root, "dev")[1].to_dict() == {"1015_TAI_NEU_XX": "neutral"}


def test_a_list_of_ones_own(root):
    listing = root / "train.csv"
    listing.write_text("1015_TAI_NEU_XX,NEU\n1064_IEO_DIS_MD,DIS\n\n")
    _, y = load_crema_d(root, listing=listing)
    assert y.to_dict() == {"1015_TAI_NEU_XX": "neutral", "1064_IEO_DIS_MD": "disgust"}
    listing.write_text("id,label\n")
    with pytest.raises(ValueError, match=r"must begin with a clip's name.*got 'id'"):
        load_crema_d(root, listing=listing)


def test_files_that_are_not_there(root):
    (root / "VideoFlash" / "1001_DFA_ANG_XX.flv").unlink()
    with pytest.raises(FileNotFoundError, match="1 clips of CREMA-D are not there"):
        load_crema_d(root)
    X, _ = load_crema_d(root, on_missing_clip="missing")
    assert X["video"].iloc[0] is None
    assert X["audio"].iloc[0] is not None
    with pytest.raises(ValueError, match="on_missing_clip must be one of"):
        load_crema_d(root, on_missing_clip="skip")
