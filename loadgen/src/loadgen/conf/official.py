"""The official reading: accepts, misreads and ignores exactly what the official LoadGen does."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from loadgen.conf.keys import is_number, values_set, with_values
from loadgen.settings import TestSettings


@dataclass(frozen=True)
class Outcome:
    """What the official `TestSettings.FromConfig` does with a file."""

    code: int
    """0, -ENOENT or -EINVAL."""
    settings: TestSettings
    """As asked for, unchanged unless `code` is 0."""
    errors: tuple[str, ...] = ()
    """Values of the `error_invalid_config` entries that go to the next test's detail log."""


def from_config(
    path: str | os.PathLike[str], model: str, scenario: str, settings: TestSettings
) -> tuple[int, TestSettings]:
    """The official `FromConfig`, return code and all; `settings.revision` picks whose.

    For 6.0 this is its `conf_type=2`; the built-in rules and the once-a-process counter of
    `conf_type=1` are the caller's (`apply_official`). `scenario` may be any string, as officially.
    """
    outcome = read_official(path, model, scenario, settings)
    return outcome.code, outcome.settings


def read_official(path: str | os.PathLike[str], model: str, scenario: str, settings: TestSettings) -> Outcome:
    """`from_config` that also tells what it would log."""
    try:
        data = _bytes_of(path)
    except OSError:
        return Outcome(-errno.ENOENT, settings, (f"can't open file {os.fspath(path)}",))
    return apply_official(data, model, scenario, settings, is_rules=False)


def apply_official(data: bytes, model: str, scenario: str, settings: TestSettings, *, is_rules: bool) -> Outcome:
    """`read_official` of a file's content. `is_rules` is 6.0's `conf_type=0`."""
    pairs: dict[str, str] = {}
    errors: list[str] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        complaint = read_line([token.decode(errors="surrogateescape") for token in line.split()], pairs)
        if complaint:
            errors.append(f"{complaint}, line={number}")
    if errors:
        return Outcome(-errno.EINVAL, settings, tuple(errors))
    found = values_set(pairs, model, scenario, settings, is_rules)
    if "mode" not in found and any(f"{m}.{s}.mode" in pairs for m in (model, "*") for s in (scenario, "*")):
        errors.append("Invalid value passed to Mode key in config.")
    return Outcome(0, with_values(settings, found), tuple(errors))


def read_line(tokens: Sequence[str], pairs: dict[str, str]) -> str | None:
    """Read a line into `pairs`. A "#" is a comment before the value only; of values the last wins."""
    if not tokens or tokens[0] == "#" or len(tokens) == 1 or tokens[1] == "#":
        return None
    if tokens[1] != "=":
        return "expected 'key=value'"
    for value in tokens[2:]:
        if not is_number(value):
            return "value needs to be integer or double"
        pairs[tokens[0]] = value
    return None


def _bytes_of(path: str | os.PathLike[str]) -> bytes:
    """The file's bytes. A folder reads as an empty file, because a C++ stream opens it."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except IsADirectoryError:
        return b""
