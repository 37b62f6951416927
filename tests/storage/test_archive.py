"""Values and tensors in one file, which is whole or refused."""

import math
import os
import pickle

import pytest
import torch

from robustmm.storage.archive import dump_archive, load_archive

STATE = {
    "tensors": {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.zeros(0, 2)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "betas": (0.9, 0.98)},
    "flags": [True, None, "text", math.inf, {"document": 3}],
    "bytes": torch.arange(5, dtype=torch.uint8),
}


def test_values_and_tensors_come_back(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(dump_archive(STATE))
    found = load_archive(path, most=10_000)
    torch.testing.assert_close(found["tensors"], STATE["tensors"], rtol=0, atol=0)
    assert found["optimizer"]["state"][0]["step"] == 3
    assert found["optimizer"]["betas"] == (0.9, 0.98)
    assert found["flags"] == STATE["flags"]
    assert found["bytes"].tolist() == [0, 1, 2, 3, 4]
    found["tensors"]["a"] += 1  # it owns its memory


def test_what_an_archive_cannot_hold_is_named():
    with pytest.raises(TypeError, match=r"value\.optimizer\.hook must be"):
        dump_archive({"optimizer": {"hook": print}})


def test_every_changed_byte_is_found(tmp_path):
    path, data = tmp_path / "file", dump_archive({"a": torch.zeros(3)})
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ValueError, match="cut short or was changed"):
            load_archive(path, most=10_000)
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match="cut short or was changed"):
            load_archive(path, most=10_000)


def test_the_size_is_bounded(tmp_path):
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 2**40)
    with pytest.raises(ValueError, match="at most 10000 bytes, got 1099511627776"):
        load_archive(tmp_path / "file", most=10_000)


def test_a_pickle_is_no_archive(tmp_path):
    (tmp_path / "file").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="cut short or was changed"):
        load_archive(tmp_path / "file", most=10_000)
