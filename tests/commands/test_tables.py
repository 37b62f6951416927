"""Tables in files, whole and in pieces, in all formats."""

import pandas as pd
import pytest

from robustmm.commands.tables import (
    FORMATS,
    open_rows,
    read_pieces,
    read_table,
    table_size,
)

NEEDED = ["image", "text"]
suffixes = pytest.mark.parametrize("suffix", FORMATS)


@suffixes
def test_all_formats_give_the_same_rows(suffix, shop, table):
    found = read_table(shop / f"table{suffix}", NEEDED, [*NEEDED, "id"])
    assert found.columns.tolist() == table.columns.tolist()
    filled = table.astype(object).where(table.notna(), None)
    pd.testing.assert_frame_equal(
        found.astype(object).where(found.notna(), None), filled, check_dtype=False
    )


@suffixes
def test_pieces_are_the_table(suffix, shop):
    path, told = shop / f"table{suffix}", []
    pieces = list(read_pieces(path, NEEDED, NEEDED, size=7, advance=told.append))
    assert [len(piece) for piece in pieces] == [7, 7, 7, 3]
    whole = read_table(path, NEEDED, NEEDED)
    pd.testing.assert_frame_equal(pd.concat(pieces), whole, check_dtype=False)
    assert sum(told) == table_size(path)[0]


@suffixes
def test_only_what_is_needed_is_read_where_asked(suffix, shop):
    pieces = read_pieces(shop / f"table{suffix}", ["text", "id"], ["id"], rest=False)
    assert next(iter(pieces)).columns.tolist() == ["text", "id"]


@suffixes
def test_a_column_that_lacks_is_named(suffix, shop):
    path = shop / f"table{suffix}"
    rule = r"must have a column 'title', its columns are \['image', 'text'"
    with pytest.raises(ValueError, match=rule):
        next(read_pieces(path, ["image", "title"], []))


def test_a_text_that_looks_like_nothing_or_a_number_is_a_text(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('text,label\nNA,1\nNone,2\n12,3\n"",4\n')
    table = read_table(path, ["text"], ["text"])
    assert table["text"].tolist()[:3] == ["NA", "None", "12"]
    assert pd.isna(table["text"][3])
    assert table["label"].tolist() == [1, 2, 3, 4]


def test_a_key_that_a_later_piece_lacks_is_missing_there(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text('{"image": "a", "text": "b"}\n' * 2 + '{"text": "c"}\n' * 2)
    pieces = list(read_pieces(path, NEEDED, NEEDED, size=2))
    assert pieces[1]["image"].isna().all()
    assert pieces[1].index.tolist() == [2, 3]


@suffixes
def test_what_is_no_table_is_one_error_with_its_name(suffix, tmp_path):
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(b"\xff\x00\xfe" * 9)
    with pytest.raises(ValueError, match="damaged"):
        list(read_pieces(path, NEEDED, NEEDED))


def test_a_line_that_is_no_object_is_named(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text('{"image": "a", "text": "b"}\n\n[1]\n')
    with pytest.raises(ValueError, match="line 3 must be an object, got list"):
        list(read_pieces(path, NEEDED, NEEDED))


def test_other_suffixes_and_absent_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no table .*no\.csv"):
        next(read_pieces(tmp_path / "no.csv", NEEDED, NEEDED))
    (tmp_path / "table.xlsx").touch()
    with pytest.raises(ValueError, match=r"must be one of \['.csv', .* got .*xlsx"):
        next(read_pieces(tmp_path / "table.xlsx", NEEDED, NEEDED))


def test_a_table_without_rows_is_refused(tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text("image,text\n")
    with pytest.raises(ValueError, match="must have a row at least"):
        read_table(path, NEEDED, NEEDED)


@suffixes
def test_rows_are_written_piece_by_piece(suffix, tmp_path):
    path = tmp_path / f"out{suffix}"
    frame = pd.DataFrame({"id": ["a", "ß"], "value": [0.5, None]})
    with open_rows(path) as write:
        write(frame)
        assert not path.exists()
        write(frame)
    found = read_table(path, ["id"], ["id"])
    pd.testing.assert_frame_equal(
        found, pd.concat([frame, frame], ignore_index=True), check_dtype=False
    )
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_half_way_leaves_no_file_and_the_old_one_alone(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("old")
    with pytest.raises(ValueError, match="--force replaces it"), open_rows(path):
        pass
    with pytest.raises(KeyError), open_rows(path, force=True) as write:
        write(pd.DataFrame({"a": [1]})["b"])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_rows_go_to_stdout_where_there_is_no_file(capsys):
    with open_rows(None) as write:
        write(pd.DataFrame({"a": [1]}))
        write(pd.DataFrame({"a": [2]}))
    assert capsys.readouterr().out == "a\n1\n2\n"
