import pytest

from robustmm.datasets import load_ave

TRAIN = """Category&VideoID&Quality&StartTime&EndTime
Church bell&aaa&good&0&10
Male speech, man speaking&b-b&good&2&5
Violin, fiddle&b-b&good&0&0
Frying (food)&_cc&good&0&9

"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "AVE").mkdir()
    for film in ("aaa", "b-b", "_cc", "ddd"):
        (tmp_path / "AVE" / f"{film}.mp4").touch()
    (tmp_path / "trainSet.txt").write_text(TRAIN)
    (tmp_path / "valSet.txt").write_text("Shofar&ddd&good&0&10\n")
    (tmp_path / "testSet.txt").write_text("Goat&_cc&good&1&2\n")
    return tmp_path


def test_categories_with_commas_and_films_with_two(root):
    X, y = load_ave(root, shared="keep")
    assert X.index.tolist() == ["aaa", "b-b", "b-b", "_cc"]
    assert y.tolist()[1:3] == ["Male speech, man speaking", "Violin, fiddle"]
    assert X["audio"].tolist() == X["video"].tolist()
    assert X["video"].iloc[0] == str(root / "AVE" / "aaa.mp4")


def test_films_of_two_splits_are_reported(root):
    with pytest.warns(UserWarning, match="1 films of AVE's 'train' .* is '_cc'"):
        assert len(load_ave(root)[0]) == 4
    X, _ = load_ave(root, shared="drop")
    assert X.index.tolist() == ["aaa", "b-b", "b-b"]
    assert len(load_ave(root, "test", shared="keep")[0]) == 1
    assert len(load_ave(root, "dev")[0]) == 1
    with pytest.raises(ValueError, match="shared must be one of"):
        load_ave(root, shared="no")


def test_files_that_are_not_there(root):
    (root / "AVE" / "ddd.mp4").unlink()
    with pytest.raises(FileNotFoundError, match="1 clips of AVE are not there"):
        load_ave(root, "dev")
    X, _ = load_ave(root, "dev", on_missing_clip="missing")
    assert X.iloc[0].tolist() == [None, None]
    (root / "testSet.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"AVE needs .*testSet.txt"):
        load_ave(root, "dev")


def test_another_form_of_list(root):
    (root / "valSet.txt").write_text("Goat,ddd,0,1\n")
    with pytest.raises(
        ValueError, match=r"A row must be Category&VideoID.*got 'Goat,d"
    ):
        load_ave(root, "dev")
