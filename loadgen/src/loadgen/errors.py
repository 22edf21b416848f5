"""The one exception that is the user's to mend. Apart from `contracts`, so that help needs no numpy."""

from __future__ import annotations


class InputError(Exception):
    """A user's input cannot be used. The message names the file, key or sample and what to do next;
    the command line prints it alone, without a traceback, and exits with 2. Whatever else is raised is a bug."""
