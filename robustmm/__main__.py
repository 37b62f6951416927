"""``python -m robustmm``: fit, predict, report and info at the command line."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main())
