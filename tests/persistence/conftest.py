"""One fitted toy, saved without and with its backbone."""

import pytest
from contract import ToyClassifier, small
from saved import X, Y

import robustmm


@pytest.fixture(scope="session")
def toy():
    return small(ToyClassifier).fit(X, Y)


@pytest.fixture
def folder(toy, tmp_path):
    robustmm.save(toy, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="session")
def complete(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("complete") / "model"
    robustmm.save(toy, folder, include_backbone=True)
    return folder
