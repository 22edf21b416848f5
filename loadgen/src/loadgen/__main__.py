"""`python -m loadgen`: see `loadgen.commands`."""

import sys

from loadgen.commands import main

if __name__ == "__main__":
    sys.exit(main())
