"""``python -m xmrcae``: the command line, as the script ``xmrcae``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
