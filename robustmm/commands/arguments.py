"""The words of the command line."""

from __future__ import annotations

import argparse

from .. import __version__
from .settings import DEFAULT_METHOD, parse_setting

EXIT_CODES = "Exit codes: 0 done, 1 an error, 2 wrong usage, 130 interrupted."
TABLE = "rows, as .csv, .tsv, .jsonl or .parquet"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its namespace has the command's name as ``command``."""
    parser = argparse.ArgumentParser(
        prog="robustmm",
        description="Classify rows with an image and a text, either of which may be "
        "missing.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_fit(commands)
    _add_predict(commands)
    _add_report(commands)
    _add_info(commands)
    return parser


def _command(commands, name: str, says: str) -> argparse.ArgumentParser:
    # A prefix of an option would be taken for another one the day that one is added.
    return commands.add_parser(
        name, help=says, description=says, epilog=EXIT_CODES, allow_abbrev=False
    )


def _add_fit(commands) -> None:
    parser = _command(commands, "fit", "fit a classifier on a table and save it")
    parser.add_argument("table", metavar="TABLE", help=TABLE)
    _add_label(parser)
    parser.add_argument("--out", required=True, metavar="MODEL", help="a new folder")
    parser.add_argument("--force", action="store_true", help="replace a saved model")
    parser.add_argument(
        "--include-backbone",
        action="store_true",
        help="save the frozen weights, too, for machines without the hub",
    )
    choice = parser.add_argument_group("the classifier")
    choice.add_argument(
        "--method", default=DEFAULT_METHOD, help="its class (default: %(default)s)"
    )
    choice.add_argument(
        "--backbone",
        action="append",
        metavar="NAME",
        help="hub id or folder; may be repeated where several are tried",
    )
    choice.add_argument("--image-backbone", metavar="NAME")
    choice.add_argument("--text-backbone", metavar="NAME")
    choice.add_argument(
        "--set",
        type=parse_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any parameter of the class, such as rank=8; may be repeated",
    )
    choice.add_argument("--seed", type=int, help="random_state of the fit")
    choice.add_argument("--time-limit", type=float, metavar="SECONDS")
    columns = parser.add_argument_group("the table")
    columns.add_argument("--image-column", metavar="COL", help="(default: image)")
    columns.add_argument("--text-column", metavar="COL", help="(default: text)")
    _add_images(columns)
    _add_device(parser, None)


def _add_predict(commands) -> None:
    parser = _command(
        commands, "predict", "predict the rows of a table, of any length, in pieces"
    )
    parser.add_argument("model", metavar="MODEL", help="what fit has saved")
    parser.add_argument("table", metavar="TABLE", help=TABLE)
    parser.add_argument(
        "--out", metavar="FILE", help="a new .csv, .tsv, .jsonl or .parquet; or stdout"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE")
    parser.add_argument("--proba", action="store_true", help="with probabilities")
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="COL",
        help="a column to copy, such as an id; may be repeated",
    )
    _add_separator(parser, "|")
    _add_images(parser)
    _add_device(parser, "auto")


def _add_report(commands) -> None:
    parser = _command(
        commands, "report", "score a model on a table, for each missing pattern"
    )
    parser.add_argument("model", metavar="MODEL", help="what fit has saved")
    parser.add_argument("table", metavar="TABLE", help=TABLE)
    _add_label(parser)
    parser.add_argument("--out", metavar="FOLDER", help="for numbers and pictures")
    parser.add_argument(
        "--scoring",
        nargs="+",
        metavar="NAME",
        help="scikit-learn's names (default: accuracy f1_macro, or f1_macro f1_micro)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the cells taken away")
    _add_images(parser)
    _add_device(parser, "auto")


def _add_info(commands) -> None:
    parser = _command(commands, "info", "versions, devices and methods; or of a model")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="what fit has saved")


def _add_label(parser) -> None:
    parser.add_argument("--label", required=True, metavar="COL", help="its labels")
    _add_separator(parser, None)


def _add_separator(parser, default: str | None) -> None:
    says = "what stands between the labels of a cell that may have several"
    parser.add_argument(
        "--labels-separator",
        default=default,
        metavar="TEXT",
        help=says + (f' (default: "{default}")' if default else ""),
    )


def _add_images(parser) -> None:
    parser.add_argument(
        "--image-root",
        metavar="FOLDER",
        help="where image paths start (default: the table's folder)",
    )
    parser.add_argument(
        "--on-bad-image",
        choices=("raise", "missing"),
        help="an image that cannot be read is an error, or a missing one",
    )


def _add_device(parser, default: str | None) -> None:
    parser.add_argument("--device", default=default, help="auto, cpu, cuda, mps, ...")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
