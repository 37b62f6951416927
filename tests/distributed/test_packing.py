import io
import zipfile

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import robustmm
from robustmm import LinearProbeClassifier
from robustmm.distributed import packing
from robustmm.distributed.packing import Opening, open_model, pack_model, unpack_model

pytestmark = pytest.mark.filterwarnings("ignore:.*neither image nor text")


def test_a_name_is_that_of_the_content(probe, binary, tmp_path):
    robustmm.save(probe, tmp_path / "model")
    name, _ = pack_model(probe)
    assert pack_model(tmp_path / "model")[0] == name
    assert pack_model(binary)[0] != name


def test_what_is_unpacked_predicts_the_same(probe, table):
    model = unpack_model(pack_model(probe)[1], Opening("cpu"))
    # Frozen features of the one are remembered from other batches.
    found, expected = model.predict_proba(table), probe.predict_proba(table)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert model.cache is None


def test_the_cache_is_that_of_the_opening(probe, tmp_path):
    opening = Opening("cpu", str(tmp_path))
    assert unpack_model(pack_model(probe)[1], opening).cache == str(tmp_path)


def test_bytes_are_fetched_once(probe, monkeypatch):
    monkeypatch.setattr(packing, "_OPEN", packing.OrderedDict())
    name, content = pack_model(probe)
    fetched = []

    def fetch():
        fetched.append(name)
        return content

    first = open_model(name, fetch, Opening("cpu"))
    assert open_model(name, fetch, Opening("cpu")) is first
    assert fetched == [name]
    open_model("another", fetch, Opening("cpu"))
    open_model("a third", fetch, Opening("cpu"))
    assert len(packing._OPEN) == 2
    assert open_model(name, fetch, Opening("cpu")) is not first


def test_nothing_but_a_fitted_or_saved_model_is_packed(tmp_path):
    with pytest.raises(TypeError, match="fitted classifier or the path"):
        pack_model({"rank": 4})
    with pytest.raises(NotFittedError):
        pack_model(LinearProbeClassifier("robustmm/tiny-clip"))
    with pytest.raises(FileNotFoundError, match="no saved model"):
        pack_model(tmp_path)


def test_the_archive_holds_no_pickle(probe):
    names = zipfile.ZipFile(io.BytesIO(pack_model(probe)[1])).namelist()
    assert {name.rpartition(".")[2] for name in names} == {"json", "safetensors"}
