"""What fails in another process or on another node, in a form that always travels: its class may not exist here."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from loadgen.contracts import InputError


class WorkerError(RuntimeError):
    """A worker, or a system in a process of its own, did not start, failed or ended. The message names it."""


class RemoteTraceback(Exception):
    """The cause of an exception that is raised here for one that was raised elsewhere: its traceback, as text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


@dataclass(frozen=True)
class Failure:
    """An exception, as it is sent."""

    what: str
    """Its class and message; of an InputError the message alone."""
    traceback: str
    is_input: bool
    """Was it an InputError?"""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        is_input = isinstance(error, InputError)
        what = str(error) if is_input else f"{type(error).__name__}: {error}"
        return cls(what, "".join(traceback.format_exception(error)), is_input)

    def error(self, where: str) -> InputError | WorkerError:
        """What to raise here."""
        error = (InputError if self.is_input else WorkerError)(f"{where}: {self.what}")
        error.__cause__ = RemoteTraceback(self.traceback)
        return error
