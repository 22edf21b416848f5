"""The user.conf of a result: what a run changed of the round's settings, as the official LoadGen reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loadgen.conf.keys import KEYS
from loadgen.submission.runs import Test


def user_conf(model: str, test: Test) -> str:
    """Every setting that is not the rules', below the layer that set it as a comment."""
    lines = [f"# What this run changed of the round's settings for {model}, {test.scenario}."]
    for scope, key, value, origin in _changed(test):
        lines += [f"# By {origin}:", f"{model}.{scope}.{key} = {value}"]
    if len(lines) == 1:
        lines.append("# Nothing.")
    return "\n".join(lines) + "\n"


def _changed(test: Test) -> Iterator[tuple[str, str, str, str]]:
    """(scenario, key, value in the file's unit, origin)."""
    for (lookup, name), key in KEYS.items():
        origin = test.origins.get(key.field, "")
        if origin.startswith("rules ") or not origin or lookup not in ("*", test.scenario) or key.kind == "mode":
            continue
        yield test.scenario, name, _written(test.settings, key.field, key.scale), origin.rsplit("/", 1)[-1]


def _written(settings: Mapping[str, Any], field: str, scale: float) -> str:
    value = settings[field]
    if isinstance(value, bool):
        return str(int(value))
    return f"{value / scale:.12g}" if scale != 1 or isinstance(value, float) else str(value)
