"""Builds and loads a backend where it is to run: in a process of its own, or on another machine."""

from __future__ import annotations

import importlib
import platform

from loadgen.contracts import Backend, BackendOptions, InputError


def load_here(dotted: str, options: BackendOptions) -> Backend:
    """For a worker's own process: import, build and load a backend. Raises InputError that names this machine."""
    module, _, name = dotted.partition(":")
    try:
        backend: Backend = getattr(importlib.import_module(module), name)(options)
        backend.load()
    except ModuleNotFoundError as error:
        raise InputError(
            f"{dotted} needs the package {error.name}, which is not installed on {platform.node()}: "
            "install the benchmark there, with the extra of this backend"
        ) from error
    except ValueError as error:  # files and options are read: theirs is the fault
        raise InputError(str(error)) from error
    return backend
