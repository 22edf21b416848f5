"""`python -m loadgen`: see `loadgen.commands`; the commands on submissions are the harness's, and need click."""

import importlib.util
import sys

from loadgen.commands import main


def _main() -> int:
    if sys.argv[1:2] != ["submission"]:
        return main()
    if importlib.util.find_spec("click") is None:
        print("error: submissions need the package click: pip install './loadgen[harness]'", file=sys.stderr)
        return 2
    from loadgen.harness.submission import main as submission

    return submission(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(_main())
