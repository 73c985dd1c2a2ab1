"""`python -m worker.cli`: the same command where no script is installed, and for the processes of `up`."""

import sys

from worker.cli import main

if __name__ == "__main__":
    sys.exit(main())
