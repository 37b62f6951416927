"""The words of the command line, as they are read."""

import pytest

from robustmm import __version__
from robustmm.commands.arguments import make_parser


def test_a_fit_reads_its_options():
    words = "fit t.csv --label kind --out model --set rank=8 --set a=b --seed 3"
    arguments = make_parser().parse_args(words.split())
    assert arguments.command == "fit"
    assert arguments.set == [("rank", 8), ("a", "b")]
    assert (arguments.seed, arguments.device, arguments.force) == (3, None, False)


def test_predictions_of_several_labels_are_joined_unless_told():
    arguments = make_parser().parse_args(["predict", "model", "t.csv"])
    assert (arguments.labels_separator, arguments.keep) == ("|", [])


@pytest.mark.parametrize("command", ["", "fit", "predict", "report", "info"])
def test_help_names_the_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as stop:
        make_parser().parse_args([*command.split(), "--help"])
    assert stop.value.code == 0
    assert "130 interrupted" in " ".join(capsys.readouterr().out.split())


def test_the_version(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--version"])
    assert capsys.readouterr().out.strip() == __version__
