"""From the words of a command line to its exit code."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from tqdm.auto import tqdm

from .arguments import make_parser
from .fit import fit
from .info import info
from .predict import predict
from .report import report
from .settings import UsageError

COMMANDS = {"fit": fit, "predict": predict, "report": report, "info": info}
DONE, FAILED, INTERRUPTED = 0, 1, 130
# What a wrong table, model, path or value raises. Anything else is a mistake of ours,
# and shows where it was made.
REFUSALS = (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    words : sequence of str, optional
        What follows the program's name; that of this process if None.

    Returns
    -------
    int
        0 where all went well, 1 after an error, which is one line on stderr, 130 after
        Ctrl-C. Words that are no command end the process with 2, as argparse does.
    """
    parser = make_parser()
    arguments = parser.parse_args(words)
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = _show_warning
        try:
            COMMANDS[arguments.command](arguments)
            sys.stdout.flush()
        except UsageError as error:
            parser.error(str(error))
        except BrokenPipeError:
            # Whoever read the output, such as head, has enough. Python flushes again
            # when it ends, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except REFUSALS as error:
            _say("error", error)
            return FAILED
        except KeyboardInterrupt:
            _say("error", "interrupted")
            return INTERRUPTED
    return DONE


def _say(kind: str, message: object) -> None:
    """Write one line on stderr, however many the message has."""
    text = " ".join(str(message).split()) or type(message).__name__
    text = text.replace('on_bad_image="missing"', "--on-bad-image missing")
    # Above a bar that is being drawn, not on its line.
    tqdm.write(f"robustmm: {kind}: {text}", file=sys.stderr)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    # Those of libraries are for programmers, and name lines that no user has written.
    if issubclass(category, UserWarning):
        _say("warning", message)
