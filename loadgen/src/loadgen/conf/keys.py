"""The keys of config files: which there are, how each value is read, and which of a file's lines win.

Numbers are read as C's `strtoull` and `strtod` read them, because the official LoadGen does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from loadgen.settings import Mode, Revision, TestSettings

Value: TypeAlias = "int | float | bool | Mode"


class Key(NamedTuple):
    """Where a key's value goes."""

    field: str
    kind: str
    """One of `READERS`."""
    scale: float = 1


_MS_TO_NS = 1_000_000
_PERCENT = 0.01

KEYS: Mapping[tuple[str, str], Key] = {
    # (scenario it is looked up for, key). "*": the scenario that is asked for. The others are
    # looked up for their own scenario whatever is asked for, as officially. Order matters only in
    # that a switch stands before what it guards (`GUARDED`).
    ("*", "mode"): Key("mode", "mode"),
    ("*", "min_duration"): Key("min_duration_ms", "uint64"),
    ("*", "max_duration"): Key("max_duration_ms", "uint64"),
    ("*", "min_query_count"): Key("min_query_count", "uint64"),
    ("*", "max_query_count"): Key("max_query_count", "uint64"),
    ("*", "qsl_rng_seed"): Key("qsl_rng_seed", "uint64"),
    ("*", "sample_index_rng_seed"): Key("sample_index_rng_seed", "uint64"),
    ("*", "schedule_rng_seed"): Key("schedule_rng_seed", "uint64"),
    ("*", "accuracy_log_rng_seed"): Key("accuracy_log_rng_seed", "uint64"),
    ("*", "accuracy_log_probability"): Key("accuracy_log_probability", "percent", _PERCENT),
    ("*", "accuracy_log_sampling_target"): Key("accuracy_log_sampling_target", "uint64"),
    ("*", "test05"): Key("test05", "is one"),
    ("*", "test05_qsl_rng_seed"): Key("test05_qsl_rng_seed", "uint64"),
    ("*", "test05_sample_index_rng_seed"): Key("test05_sample_index_rng_seed", "uint64"),
    ("*", "test05_schedule_rng_seed"): Key("test05_schedule_rng_seed", "uint64"),
    ("*", "print_timestamps"): Key("print_timestamps", "is not zero"),
    ("*", "performance_issue_unique"): Key("performance_issue_unique", "is not zero"),
    ("*", "performance_issue_same"): Key("performance_issue_same", "is not zero"),
    ("*", "performance_issue_same_index"): Key("performance_issue_same_index", "uint64"),
    ("*", "performance_sample_count_override"): Key("performance_sample_count_override", "uint64"),
    ("*", "accuracy_sample_count_override"): Key("accuracy_sample_count_override", "uint64"),
    ("*", "sample_concatenate_permutation"): Key("sample_concatenate_permutation", "is one"),
    ("SingleStream", "target_latency"): Key("single_stream_expected_latency_ns", "double", _MS_TO_NS),
    ("SingleStream", "target_latency_percentile"): Key("single_stream_target_latency_percentile", "percent", _PERCENT),
    ("MultiStream", "target_latency"): Key("multi_stream_expected_latency_ns", "double", _MS_TO_NS),
    ("MultiStream", "target_latency_percentile"): Key("multi_stream_target_latency_percentile", "percent", _PERCENT),
    ("MultiStream", "samples_per_query"): Key("multi_stream_samples_per_query", "uint64"),
    ("Server", "target_qps"): Key("server_target_qps", "double"),
    ("Server", "target_latency"): Key("server_target_latency_ns", "uint64", _MS_TO_NS),
    ("Server", "target_latency_percentile"): Key("server_target_latency_percentile", "percent", _PERCENT),
    ("Server", "coalesce_queries"): Key("server_coalesce_queries", "is not zero"),
    ("Server", "max_async_queries"): Key("server_max_async_queries", "int32"),
    ("*", "use_token_latencies"): Key("use_token_latencies", "is one"),
    ("Server", "ttft_latency"): Key("server_ttft_latency", "uint64", _MS_TO_NS),
    ("Server", "tpot_latency"): Key("server_tpot_latency", "uint64", _MS_TO_NS),
    ("*", "infer_token_latencies"): Key("infer_token_latencies", "is one"),
    ("*", "token_latency_scaling_factor"): Key("token_latency_scaling_factor", "uint64"),
    ("Offline", "target_qps"): Key("offline_expected_qps", "double"),
}

# Read only behind a switch. Revision 4.0 wants the switch in the same file; 6.0 wants it on.
GUARDED = {
    "ttft_latency": "use_token_latencies",
    "tpot_latency": "use_token_latencies",
    "token_latency_scaling_factor": "infer_token_latencies",
}
# Revision 6.0 takes these from its built-in rules alone; 4.0 takes them from any file.
RULES_ONLY = frozenset(
    {"qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed", "accuracy_log_probability", "test05"}
    | {"test05_qsl_rng_seed", "test05_sample_index_rng_seed", "test05_schedule_rng_seed"}
)
SINCE_6_0 = frozenset({"accuracy_sample_count_override"})
# Written in official mlperf.conf files, read by no LoadGen.
NEVER_READ = frozenset({"target_duration"})

_INTEGER = re.compile(r"([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_DOUBLE = re.compile(
    r"[+-]?(?:(?P<hex>0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?)"
    r"|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|(?P<nan>nan(?:\([a-z0-9_]*\))?))",
    re.IGNORECASE | re.ASCII,
)
_UINT64_MAX = 2**64 - 1
_UINT64_DIGITS = 24  # octal needs 22 + "0"; longer is out of range, and int() refuses 4,300 digits


def strtoull(text: str) -> int:
    """C's `strtoull(text, 0, 0)`: octal and hex, reads a prefix, negates and saturates in 64 bits."""
    match = _INTEGER.match(text)
    if match is None:
        return 0
    sign, number = match[1], match[2].lower()
    base = 16 if number.startswith("0x") else 8 if number.startswith("0") else 10
    digits = number.removeprefix("0x").lstrip("0") or "0"
    value = int(digits, base) if len(digits) <= _UINT64_DIGITS else _UINT64_MAX + 1
    if value > _UINT64_MAX:
        return _UINT64_MAX
    return -value & _UINT64_MAX if sign == "-" else value


def is_number(text: str) -> bool:
    """Whether C's `strtod` takes all of a token; then it is a value, and `strtoull` may misread it."""
    return _DOUBLE.fullmatch(text) is not None


def strtod(text: str) -> float:
    """C's `strtod` of a token that `is_number`."""
    match = _DOUBLE.fullmatch(text)
    if match is None or match["nan"]:
        return float("nan")
    if not match["hex"]:
        return float(text)
    try:
        return float.fromhex(text)
    except OverflowError:
        return float("-inf" if text.startswith("-") else "inf")


def _int32(text: str, scale: float) -> int:
    """Through a C `int` into 64 unsigned bits: 2^31 becomes 2^64 - 2^31."""
    value = strtoull(text) & 0xFFFFFFFF
    return value if value < 2**31 else value - 2**32 & _UINT64_MAX


def _mode(text: str, scale: float) -> Mode | None:
    number = strtoull(text)
    return Mode(number) if number < len(Mode) else None  # officially: an error in the log, no change


READERS: Mapping[str, Callable[[str, float], Value | None]] = {
    "uint64": lambda text, scale: strtoull(text) * int(scale) & _UINT64_MAX,
    "int32": _int32,
    "double": lambda text, scale: strtod(text) * scale,
    "percent": lambda text, scale: strtod(text) * scale,
    "is one": lambda text, scale: strtoull(text) == 1,
    "is not zero": lambda text, scale: strtoull(text) != 0,
    "mode": _mode,
}


def values_set(
    pairs: Mapping[str, str], model: str, scenario: str, settings: TestSettings, is_rules: bool
) -> dict[str, tuple[Value, str]]:
    """What one file sets: field -> (value, the key as written).

    pairs: key as written -> value. settings: as they are before this file.
    """
    found: dict[str, tuple[Value, str]] = {}
    for (lookup, name), key in KEYS.items():
        if not is_honoured(name, settings, is_rules) or not is_unguarded(name, found, settings):
            continue
        scope = scenario if lookup == "*" else lookup
        order = (f"{model}.{scope}.{name}", f"*.{scope}.{name}", f"{model}.*.{name}", f"*.*.{name}")
        written = next((candidate for candidate in order if candidate in pairs), None)
        if written is not None:
            value = READERS[key.kind](pairs[written], key.scale)
            if value is not None:
                found[key.field] = (value, written)
    return found


def is_honoured(name: str, settings: TestSettings, is_rules: bool) -> bool:
    """Whether the settings' revision reads this key from such a file."""
    if settings.revision is Revision.V4_0:
        return name not in SINCE_6_0
    return is_rules or name not in RULES_ONLY


def is_unguarded(name: str, found: Mapping[str, tuple[Value, str]], settings: TestSettings) -> bool:
    """Whether the switch that this key needs, if any, is on; `found` is what this file set so far."""
    switch = GUARDED.get(name)
    if switch is None:
        return True
    if switch in found:
        return bool(found[switch][0])
    return settings.revision is not Revision.V4_0 and bool(getattr(settings, switch))


def with_values(settings: TestSettings, found: Mapping[str, tuple[Value, str]]) -> TestSettings:
    """`settings` with what `values_set` found."""
    return replace(settings, **{name: value for name, (value, _) in found.items()})  # type: ignore[arg-type]
