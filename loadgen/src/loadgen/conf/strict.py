"""The strict reading: refuses what the official LoadGen would misread, with file, line and what to write."""

from __future__ import annotations

import difflib
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple, TypeAlias

from loadgen.conf.keys import (
    GUARDED,
    KEYS,
    NEVER_READ,
    READERS,
    SINCE_6_0,
    Key,
    Value,
    is_honoured,
    is_number,
    is_unguarded,
    strtod,
    strtoull,
    values_set,
    with_values,
)
from loadgen.conf.official import read_line
from loadgen.errors import InputError
from loadgen.settings import Mode, Revision, Scenario, TestSettings


class ConfError(InputError):
    """A config file that strict reading refuses; says file:line, the key and what to write."""


class ConfWarning(UserWarning):
    """A line that is well formed but that no test reads."""


class Text(NamedTuple):
    """Config text that is not a file, such as a round's rules."""

    name: str
    """Stands where a path would in errors and origins."""
    text: str
    is_rules: bool = True
    """The round's own rules: revision 6.0 takes seeds from nowhere else (`loadgen.conf.keys.RULES_ONLY`)."""


Source: TypeAlias = "Path | Text"


class _Line(NamedTuple):
    key: str
    model: str
    scope: str
    name: str
    value: str
    origin: str

    def error(self, complaint: str) -> ConfError:
        return ConfError(f"{self.origin}: {self.key}: {complaint}")


class Effective(NamedTuple):
    """One effective setting and where it came from."""

    key: str
    """As written in the file, or how to write it."""
    field: str
    value: Value
    origin: str
    """`file:line`, `default`, or `base` where the caller's settings differ from the default."""


def settings_from(sources: Sequence[Source], model: str, scenario: Scenario, base: TestSettings) -> TestSettings:
    """`base` for `scenario`, with the files applied in order.

    Raises ConfError for what the official LoadGen would refuse, misread, or not know; warns
    (`ConfWarning`) of lines that it knows but passes over.
    """
    for note in ignored(sources, model, scenario, base):
        warnings.warn(note, ConfWarning, stacklevel=2)
    settings = base
    for step in _steps(sources, model, scenario, base):
        settings = step.after
    return replace(settings, scenario=scenario)


def models_named(file: Path) -> dict[str, str]:
    """Each model that the file's keys name, with the first line that does: `file:line`. Raises ConfError."""
    return {line.model: line.origin for line in reversed(list(_lines(file)))}


def nearest(word: str, known: Sequence[str]) -> str:
    """The known word that is nearest, or nothing; letter case does not count."""
    by_case = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(word.lower(), by_case, n=1)
    return by_case[close[0]] if close else ""


def explain(
    sources: Sequence[Source], model: str, scenario: Scenario, base: TestSettings | None = None
) -> list[Effective]:
    """Every setting that has a key and matters to `scenario`, with its origin. Strict."""
    settings, defaults = base or TestSettings(), TestSettings()
    origins: dict[str, tuple[str, str]] = {}
    for step in _steps(sources, model, scenario, settings):
        settings = step.after
        for field, (_, written) in step.found.items():
            origins[field] = written, step.lines[written].origin
    rows = []
    for (lookup, name), key in KEYS.items():
        is_known = name not in SINCE_6_0 or settings.revision is not Revision.V4_0
        if is_known and lookup in ("*", scenario.name):
            value = getattr(settings, key.field)
            unset = "default" if value == getattr(defaults, key.field) else "base"
            written, origin = origins.get(key.field, (f"{model}.{scenario.name}.{name}", unset))
            rows.append(Effective(written, key.field, value, origin))
    return rows


def format_explanation(rows: Sequence[Effective], notes: Sequence[str] = ()) -> str:
    """`explain` as aligned lines; `notes` (see `ignored`) follow below."""
    cells = [(row.field, _shown(row.value), row.origin, row.key) for row in rows]
    widths = [max((len(row[column]) for row in cells), default=0) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in cells
    ]
    return "\n".join([*lines, *(f"ignored: {note}" for note in notes)])


def _shown(value: Value) -> str:
    return value.name if isinstance(value, Mode) else str(value)


def ignored(sources: Sequence[Source], model: str, scenario: Scenario, base: TestSettings | None = None) -> list[str]:
    """Lines that no test reads, or that a later line of the same file replaces, each with why."""
    return [
        f"{line.origin}: {line.key} has no effect: {why}"
        for step in _steps(sources, model, scenario, base or TestSettings())
        for line in step.every
        if (why := _why_ignored(line, step, model, scenario))
    ]


class _Step(NamedTuple):
    """One source, applied."""

    every: Sequence[_Line]
    lines: Mapping[str, _Line]
    """By key as written; of equal keys the last."""
    is_rules: bool
    found: Mapping[str, tuple[Value, str]]
    after: TestSettings


def _steps(sources: Sequence[Source], model: str, scenario: Scenario, settings: TestSettings) -> Iterator[_Step]:
    for source in sources:
        every = list(_lines(source))
        lines = {line.key: line for line in every}
        is_rules = isinstance(source, Text) and source.is_rules
        pairs = {key: line.value for key, line in lines.items()}
        found = values_set(pairs, model, scenario.name, settings, is_rules)
        settings = with_values(settings, found)
        yield _Step(every, lines, is_rules, found, settings)


def _why_ignored(line: _Line, step: _Step, model: str, scenario: Scenario) -> str | None:
    revision = step.after.revision
    if step.lines[line.key] is not line:
        return f"{step.lines[line.key].origin} sets it again"
    if line.name in NEVER_READ:
        return "no LoadGen has such a setting"
    if not _keys_of(line):
        return f"{line.name} is read for {_read_for(line.name)} only"
    if not is_honoured(line.name, step.after, step.is_rules):
        needs = "revision 6.0 reads it" if line.name in SINCE_6_0 else "it stands in the round's rules"
        return f"revision {revision.value} does not read it here; {needs}"
    applies = line.model in (model, "*") and line.scope in (
        scenario.name,
        "*",
        *_read_for(line.name).split(", "),
    )
    if applies and not is_unguarded(line.name, step.found, step.after):
        where = " in the same file" if revision is Revision.V4_0 else ""
        return f"it needs {GUARDED[line.name]} = 1{where}"
    return None


def _read_for(name: str) -> str:
    return ", ".join(lookup for lookup, key in KEYS if key == name)


def _lines(source: Source) -> Iterator[_Line]:
    """The checked lines of a source."""
    name, text = source[:2] if isinstance(source, Text) else (str(source), _text_of(source))
    for number, content in enumerate(text.split("\n"), start=1):
        tokens = re.findall(r"[^ \t\n\v\f\r]+", content)  # C's spaces; str.split knows more
        if tokens and not _is_comment(tokens):
            yield _checked(tokens, f"{name}:{number}")


def _text_of(path: Path) -> str:
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfError(f"{path}: is not UTF-8 text at byte {error.start}") from error
    if text.startswith("\ufeff"):
        raise ConfError(f"{path}:1: save it without a byte-order mark, which would belong to the first key")
    return text


def _is_comment(tokens: Sequence[str]) -> bool:
    """`# ...`, and the `#key = 1` of a line put out of use, which officially is an unknown key."""
    return tokens[0] == "#" or (tokens[0].startswith("#") and read_line(tokens, {}) is None)


def _checked(tokens: Sequence[str], origin: str) -> _Line:
    key = tokens[0]
    if key.startswith("#"):
        raise ConfError(f"{origin}: write a space after '#': the official LoadGen takes '{key}' for a key")
    if "=" in key or len(tokens) < 2 or tokens[1] != "=":
        raise ConfError(f"{origin}: {key}: write 'model.scenario.key = value', with spaces around '='")
    parts = key.rsplit(".", 2)  # a model's name may hold dots
    if len(parts) != 3 or not all(parts):
        raise ConfError(f"{origin}: {key}: a key is model.scenario.key; '*' stands for any model or scenario")
    line = _Line(key, parts[0], parts[1], parts[2], " ".join(tokens[2:]), origin)
    if len(tokens) != 3:
        raise line.error(f"needs one value, has {line.value!r}; a comment goes on a line of its own")
    _check_names(line)
    _check_value(line)
    return line


def _check_names(line: _Line) -> None:
    scenarios = [scenario.name for scenario in Scenario]
    if line.scope != "*" and line.scope not in scenarios:
        near = _nearest(line.scope, scenarios) or f"; there are {', '.join(scenarios)}"
        raise line.error(f"no scenario {line.scope!r}{near}")
    names = {name for _, name in KEYS} | NEVER_READ
    if line.name in names:
        return
    for (_, name), key in KEYS.items():
        if key.field == line.name:
            raise line.error(f"unknown key {line.name!r}; its name in a file is {name!r}")
    raise line.error(f"unknown key {line.name!r}{_nearest(line.name, sorted(names))}")


def _nearest(word: str, known: Sequence[str]) -> str:
    """A question to end a complaint with, or nothing."""
    near = nearest(word, known)
    return f", did you mean {near!r}?" if near else ""


def _keys_of(line: _Line) -> list[Key]:
    """The keys that this line can feed, for one scenario or another."""
    return [
        key
        for (lookup, name), key in KEYS.items()
        if name == line.name and (lookup == "*" or line.scope in ("*", lookup))
    ]


def _check_value(line: _Line) -> None:
    if not is_number(line.value):
        raise line.error(f"{line.value!r} is not a number")
    written = _written(line.value)
    if written is None:
        raise line.error(f"{line.value!r} is not a finite decimal number")
    for key in _keys_of(line):
        complaint = _complaint(key, line.value, written)
        if complaint:
            raise line.error(complaint)


def _written(text: str) -> Decimal | None:
    """The number that a reader would take the token for."""
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", text):
        return Decimal(int(text, 16))
    try:
        number = Decimal(text)
    except InvalidOperation:  # a hexadecimal fraction, or an exponent of 19 digits
        return None
    return number if math.isfinite(strtod(text)) else None


def _complaint(key: Key, text: str, written: Decimal) -> str | None:
    if key.kind in ("is one", "is not zero"):
        return None if text in ("0", "1") else f"{text!r} must be 0 or 1"
    if key.kind == "mode":
        modes = ", ".join(f"{mode.value} {mode.name}" for mode in Mode)
        return None if text in {str(mode.value) for mode in Mode} else f"{text!r} must be one of {modes}"
    if written < 0:
        return f"{text!r} must not be negative"
    if key.kind == "percent" and written > 100:
        return f"{text!r} must be a percentage, 0 to 100"
    if key.kind in ("uint64", "int32"):
        read = READERS[key.kind](text, key.scale)
        if read != written * int(key.scale):
            return f"{text!r} must be a whole number in range; the official LoadGen reads {strtoull(text)}"
    return None
