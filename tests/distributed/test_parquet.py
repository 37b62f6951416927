import os

import fsspec
import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config

from robustmm.distributed import PartitionError, predict

pytestmark = pytest.mark.filterwarnings("ignore:.*neither image nor text")


@pytest.fixture
def folder(table, tmp_path):
    """Four files of five rows, and the table as they have it."""
    for i in range(4):
        part = table.iloc[5 * i : 5 * i + 5]
        os.makedirs(tmp_path / "in" / f"day={i // 2}", exist_ok=True)
        part.to_parquet(tmp_path / "in" / f"day={i // 2}" / f"{i}.parquet")
    return tmp_path


def ask(model, folder, output="out", **options):
    return predict(
        model, folder / "in", output=folder / output, device="cpu", **options
    )


def test_answers_are_those_of_predict_in_files_of_the_same_names(probe, folder, table):
    files = ask(probe, folder, keep=["key"], batch_rows=3)
    places = [os.path.relpath(file, folder / "out") for file in files]
    assert places == [f"day={i // 2}/{i}.parquet" for i in range(4)]
    found = pd.concat(map(pd.read_parquet, files))
    assert found.index.equals(table.index)
    assert found["key"].equals(table["key"])
    assert (found["prediction"].to_numpy() == probe.predict(table)).all()


def test_what_is_done_is_not_done_again(probe, folder):
    files = ask(probe, folder)
    os.remove(files[2])
    times = {file: os.stat(file).st_mtime_ns for file in files if file != files[2]}
    assert ask(probe, folder) == files
    assert {file: os.stat(file).st_mtime_ns for file in times} == times


def test_another_model_or_question_needs_another_folder(probe, binary, folder):
    ask(probe, folder)
    with pytest.raises(ValueError, match=r"differs in \['model'\]"):
        ask(binary, folder)
    with pytest.raises(ValueError, match=r"differs in \['method'\]"):
        ask(probe, folder, method="predict_proba")


def test_another_input_needs_another_folder(probe, folder, table):
    ask(probe, folder)
    table.iloc[5:10].assign(text="z").to_parquet(folder / "in" / "day=0" / "1.parquet")
    with pytest.raises(ValueError, match=r"differs in \['input'\]"):
        ask(probe, folder)


def test_one_file_and_a_pattern_on_another_file_system(probe, table):
    files = fsspec.filesystem("memory")
    for i in range(2):
        with files.open(f"/texts-in/{i}.parquet", "wb") as stream:
            table.iloc[10 * i : 10 * i + 10].reset_index(drop=True).to_parquet(stream)
    options = {"device": "cpu", "method": "predict_proba", "batch_rows": 4}
    one = predict(probe, "memory://texts-in/1.parquet", output="memory://o1", **options)
    all_ = predict(
        probe, "memory://texts-in/*.parquet", output="memory://o2", **options
    )
    assert one == ["memory://o1/1.parquet"]
    assert all_ == ["memory://o2/0.parquet", "memory://o2/1.parquet"]
    with files.open("/o2/1.parquet") as stream:
        found = pd.read_parquet(stream)
    expected = probe.predict_proba(table.iloc[10:])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_damaged_file_is_named(probe, folder):
    (folder / "in" / "day=1" / "2.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(PartitionError, match=r"partition 2 \(day=1/2.parquet\)"):
        ask(probe, folder)


def test_a_file_that_is_damaged_inside_is_named_and_others_are_kept(probe, folder):
    file = folder / "in" / "day=1" / "2.parquet"
    content = bytearray(file.read_bytes())
    content[4:200] = b"\xff" * 196
    file.write_bytes(content)
    with pytest.raises(PartitionError, match=r"partition 2 \(day=1/2.parquet\)"):
        ask(probe, folder)
    assert (folder / "out" / "day=0" / "1.parquet").is_file()
    assert not (folder / "out" / "day=1" / "2.parquet").exists()


def test_a_bad_row_is_named(probe, folder, table):
    cells = pd.Series(["absent.png"], index=["r11"])
    part = table.iloc[10:15].assign(image=cells)
    part.to_parquet(folder / "in" / "day=1" / "2.parquet")
    message = r"partition 2 \(day=1/2.parquet\).*'r10' to 'r14'.*row 'r11': no such"
    with pytest.raises(PartitionError, match=message):
        ask(probe, folder)


def test_empty_files_and_kept_columns_without_a_value(probe, folder, table):
    for i, name in [(0, "0"), (1, "2")]:
        part = table.iloc[:0] if name == "0" else table.iloc[10:15]
        part = part.assign(note=pd.Series(dtype=object))
        part.to_parquet(folder / "in" / f"day={i}" / f"{name}.parquet")
    files = predict(
        probe,
        folder / "in" / "*" / "[02].parquet",
        output=folder / "out",
        keep=["note"],
    )
    assert [len(pd.read_parquet(file)) for file in files] == [0, 5]


def test_threads_of_joblib_write_the_same(probe, folder):
    first = pd.concat(map(pd.read_parquet, ask(probe, folder)))
    with parallel_config("threading", n_jobs=2):
        again = pd.concat(map(pd.read_parquet, ask(probe, folder, "out2")))
    pd.testing.assert_frame_equal(first, again)


def test_no_files_and_no_output_are_errors(probe, tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="no parquet files"):
        predict(probe, tmp_path / "nowhere", output=tmp_path / "out")
    with pytest.raises(ValueError, match="output must be a folder"):
        predict(probe, folder / "in")
    with pytest.raises(ValueError, match="output must be outside of the input"):
        ask(probe, folder, "in/out")
    with pytest.raises(ValueError, match="must have a column 'nokey'"):
        ask(probe, folder, keep=["nokey"])
