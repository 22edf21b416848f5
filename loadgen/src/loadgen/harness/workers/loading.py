"""Builds and loads a backend where it is to run: in this process, in one of its own, or on another machine."""

from __future__ import annotations

import contextlib
import importlib
import platform
from collections.abc import Iterator
from typing import Any

from loadgen.contracts import Backend, BackendOptions, InputError, Loaded


def load_here(dotted: str, options: BackendOptions, install: str = "") -> tuple[Backend[Any, Any], Loaded]:
    """Import, build and load the backend "module:Class". Raises what it raises, and InputError as `package_named`."""
    module, _, name = dotted.partition(":")
    with package_named(dotted, install):
        found = importlib.import_module(module)
        if not hasattr(found, name):
            raise InputError(f"{module} has no class {name!r} here")
        backend: Backend[Any, Any] = getattr(found, name)(options)
        return backend, backend.load()


@contextlib.contextmanager
def package_named(dotted: str, install: str) -> Iterator[None]:
    """A package that is missing inside is an InputError with this machine's name and the command.

    install: the folder and extra that bring it, such as "./benchmarks/bert[pytorch]"; empty: not known. A module that
    is missing from the benchmark's own package is a bug, and raised on.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        own = dotted.partition(":")[0].partition(".")[0]
        if error.name is None or error.name.startswith(f"{own}."):
            raise
        advice = (
            f"pip install '{install}' there" if install else "install the benchmark there, with the backend's extra"
        )
        raise InputError(
            f"{dotted} needs the package {error.name}, which is not installed on {platform.node()}: {advice}"
        ) from error
