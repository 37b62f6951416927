import json

import pandas as pd
import pytest

from robustmm.distributed.output import MANIFEST, Output

ABOUT = {"model": "ab", "input": "cd"}
FRAME = pd.DataFrame({"prediction": [1, 2]})


@pytest.fixture(params=["folder", "memory"])
def output(request, tmp_path):
    if request.param == "folder":
        return Output(str(tmp_path / "answers[1]"))
    return Output(f"memory://answers-{request.node.name}")


def names(output):
    files, base = output._place
    return {file.rsplit("/", 1)[-1] for file in files.find(base)}


def test_a_file_is_there_only_when_it_is_whole(output):
    output.begin(ABOUT)
    with output.draft("a/part.parquet") as stream:
        stream.write(b"half")
        assert output.written() == set()
    assert output.written() == {"a/part.parquet"}


def test_a_writing_that_fails_leaves_nothing(output):
    output.begin(ABOUT)
    with pytest.raises(AttributeError):
        output.write("part.parquet", None)
    assert names(output) == {MANIFEST}


def test_what_was_written_is_taken_up_again(output):
    output.begin(ABOUT)
    output.write("part.parquet", FRAME)
    output.begin(ABOUT)
    assert output.written() == {"part.parquet"}
    files, _ = output._place
    with files.open(f"{output._place[1]}/part.parquet") as stream:
        assert pd.read_parquet(stream).equals(FRAME)


@pytest.mark.parametrize("part", ["model", "input"])
def test_answers_of_another_model_or_input_are_refused(output, part):
    output.begin(ABOUT)
    with pytest.raises(ValueError, match=rf"same model.*differs in \['{part}'\]"):
        output.begin(ABOUT | {part: "other"})


def test_a_folder_of_other_things_is_refused(output):
    files, base = output._place
    files.makedirs(base, exist_ok=True)
    files.pipe(f"{base}/diary.txt", b"...")
    with pytest.raises(ValueError, match=r"a new or empty folder.*diary"):
        output.begin(ABOUT)
    assert names(output) == {"diary.txt"}


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"], ids=["cut", "list", "text"])
def test_a_damaged_manifest_is_an_error(output, content):
    output.begin(ABOUT)
    files, base = output._place
    files.pipe(f"{base}/{MANIFEST}", content)
    with pytest.raises(ValueError, match="is damaged"):
        output.begin(ABOUT)


def test_the_end_removes_the_model_and_what_the_killed_left(output):
    output.begin(ABOUT)
    output.put_model("ab", b"model")
    assert output.model("ab") == b"model"
    files, base = output._place
    files.pipe(f"{base}/_draft-part.parquet.12ab", b"half")
    output.write("part.parquet", FRAME)
    assert output.finish() == [f"{output.url}/part.parquet"]
    assert names(output) == {MANIFEST, "part.parquet"}
    assert json.loads(files.cat_file(f"{base}/{MANIFEST}")) == ABOUT
