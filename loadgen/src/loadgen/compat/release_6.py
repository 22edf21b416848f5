"""The official Python API as release 6 has it: `import loadgen.compat.release_6 as mlperf_loadgen`.

As `loadgen.compat`, but a new `TestSettings` follows release 6.0: its samples, its log keys, and the rules that are
built into it (see `TestSettings.FromConfig`).
"""

from loadgen import compat
from loadgen.compat import *  # noqa: F403 - the same names
from loadgen.settings import Revision

__all__ = compat.__all__


class TestSettings(compat.TestSettings):  # type: ignore[no-redef] # that of 4.0 has come with the others
    """Of release 6.0."""

    __slots__ = ()
    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.revision = Revision.V6_0
