"""The command line, a user of the package as any other."""

from .program import main as main
