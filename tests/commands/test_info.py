"""``robustmm info``: the installation, and a model."""

import robustmm
from robustmm.commands import main
from robustmm.commands.settings import DEFAULT_METHOD, known_methods


def test_the_installation(capsys):
    assert main(["info"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["robustmm", robustmm.__version__] in lines
    first = {words[0] for words in lines}
    assert {"torch", "cpu", "robustmm/tiny-clip"} | set(known_methods()) <= first
    (default,) = [words[0] for words in lines if words[-1] == "(default)"]
    assert default == DEFAULT_METHOD


def test_a_model(model, capsys):
    assert main(["info", str(model)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("LinearProbeClassifier\n")
    assert "2: beach, forest" in out
    assert "'robustmm/tiny-clip'" in out
    assert "'both_missing': 1" in out
    assert "\n  device" not in out


def test_a_folder_without_a_model(tmp_path, capsys):
    assert main(["info", str(tmp_path)]) == 1
    assert "There is no saved model in" in capsys.readouterr().err
