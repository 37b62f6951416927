"""Exit codes, and what is said where."""

import subprocess
import sys

import pytest

from robustmm.commands import main, program


def test_an_error_is_one_line_and_exit_code_1(capsys):
    assert main(["predict", "no/such/model", "table.csv"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(
        "robustmm: error: There is no saved model in 'no/such/model'"
    )


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["train"],
        ["fit", "table.csv"],
        ["fit", "table.csv", "--label", "a", "--out", "b", "--set", "rank"],
        ["fit", "table.csv", "--label", "a", "--out", "b", "--set", "rnak=3"],
        ["fit", "table.csv", "--label", "a", "--out", "b", "--method", "magic"],
        ["predict", "model", "table.csv", "--prob"],
    ],
)
def test_wrong_usage_is_exit_code_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "usage: robustmm" in capsys.readouterr().err


def test_ctrl_c_is_exit_code_130(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setitem(program.COMMANDS, "info", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "robustmm: error: interrupted\n"


def test_a_mistake_of_ours_shows_where_it_was_made(monkeypatch):
    def broken(arguments):
        return {}["key"]

    monkeypatch.setitem(program.COMMANDS, "info", broken)
    with pytest.raises(KeyError):
        main(["info"])


def test_a_message_of_several_lines_is_one_line(monkeypatch, capsys):
    def refused(arguments):
        raise ValueError('bad\n  - rows. Pass on_bad_image="missing" to go on.')

    monkeypatch.setitem(program.COMMANDS, "info", refused)
    assert main(["info"]) == 1
    expected = "robustmm: error: bad - rows. Pass --on-bad-image missing to go on.\n"
    assert capsys.readouterr().err == expected


@pytest.mark.slow
def test_a_reader_that_has_enough_is_no_error():
    call = "import sys, robustmm.commands as c; sys.exit(c.main(['info']))"
    command = [sys.executable, "-c", call]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        p.stdout.close()
        errors = p.stderr.read()
    assert errors == b""
    assert p.returncode == 1
