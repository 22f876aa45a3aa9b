"""`python -m jaxtrader`: the same as the `jaxtrader` command."""

import sys

from jaxtrader.cli import main

if __name__ == "__main__":
    sys.exit(main())
