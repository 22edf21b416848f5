"""Replays the latencies of an official run through our judgement and compares everything reported."""

from __future__ import annotations

import math
from typing import Any

from official import Observed

from loadgen.logs import number, summary_text, verdict_entries
from loadgen.results import Records, judge
from loadgen.settings import EffectiveSettings, Scenario

# Streams of tokens only: their start is known from a rate of six digits, and these are divided by the time since.
_FROM_A_RATE = {"result_completed_tokens_per_second", "result_token_throughput_with_loadgen_overhead"}


def starts(settings: EffectiveSettings, seen: Observed, k: int, span: slice) -> list[int]:
    """When series k began, ns in its trace: the best estimate first, then the bounds. `span`: its samples."""
    trace = seen.trace
    if settings.scenario in (Scenario.Server, Scenario.Offline):
        return [int(trace.scheduled[span.start])]
    last = int(trace.issued[span.stop - 1])
    for text in map(str, seen.values("error_runtime")):
        if "Max test duration reached. duration_ns" in text:
            return [last - int(text.split()[-1])]
    low = trace.generated[k]
    high = min(at for at in trace.loops if at >= low)
    rate, error, count = _rate(settings, seen, span)
    if rate and k == len(seen.loads) - 1:  # accuracy series have none
        low = max(low, math.floor(last - count / (rate - error) * 1e9))
        high = min(high, math.ceil(last - count / (rate + error) * 1e9))
    return [(low + high) // 2, low, high]


def _rate(settings: EffectiveSettings, seen: Observed, span: slice) -> tuple[float, float, int]:
    """(a reported rate, its rounding, what it counts until the last query was issued); 0 if there is none."""
    tokens = int((2 + seen.trace.indices[span] % 5).sum())
    counts = {
        "QPS w/ loadgen overhead         : ": span.stop - span.start - 1,
        "TPS w/ loadgen overhead         : ": tokens,
    }
    for before, count in counts.items():
        if settings.scenario is Scenario.SingleStream and before in seen.summary and count:
            rate = float(seen.summary.split(before)[1].split("\n")[0])
            return rate, max(0.0051, 1e-12 * rate), count
    for rate in seen.values("result_token_throughput_with_loadgen_overhead"):
        return rate, 5.1e-6 * rate, tokens
    return 0.0, 0.0, 0


def records(settings: EffectiveSettings, seen: Observed, samples_per_query: int, span: slice, start: int) -> Records:
    """The columns of an official performance series, out of the trace."""
    trace, tokens = seen.trace, settings.requested.use_token_latencies
    has_first = tokens and settings.scenario is not Scenario.Offline
    return Records(
        scheduled_ns=(trace.scheduled[span] - start)[::samples_per_query],
        issued_ns=(trace.issued[span] - start)[::samples_per_query],
        completed_ns=trace.completed[span] - start,
        samples_per_query=samples_per_query,
        first_token_ns=trace.first_token[span] - start if has_first else None,
        n_tokens=2 + trace.indices[span] % 5 if tokens else None,
    )


def differences(
    observed: Observed, settings: EffectiveSettings, samples_per_query: int, span: slice, start: int
) -> list[str]:
    """Every reported value, detail and summary, that differs between the official run and ours."""
    replayed = records(settings, observed, samples_per_query, span, start)
    verdict = judge(settings, replayed)
    ours = {"result_query_count": None, **dict(verdict_entries(settings, verdict))}
    theirs = [(e["key"], e["value"]) for e in observed.detail if e["key"].startswith(("result_", "early_"))]
    found = []
    if [k for k, _ in theirs] != list(dict(verdict_entries(settings, verdict))):
        found.append(f"keys {[k for k, _ in theirs]} != {list(dict(verdict_entries(settings, verdict)))}")
    for key, value in theirs:
        stream = settings.scenario in (Scenario.SingleStream, Scenario.MultiStream)
        if not same(ours.get(key), value, 1.2e-5 if stream and key in _FROM_A_RATE else 2e-6):
            found.append(f"{key}: official {value!r}, ours {ours.get(key)!r}")
    text = summary_text(settings, verdict, "PySUT", 0, 0)
    theirs_text = observed.summary
    for a, b in zip(_body(theirs_text), _body(text), strict=False):
        if not _same_line(a, b):
            found.append(f"summary: official {a!r}, ours {b!r}")
    if len(_body(theirs_text)) != len(_body(text)):
        found.append(f"summary: {len(_body(theirs_text))} lines, ours {len(_body(text))}")
    return found


def _body(text: str) -> list[str]:
    """Without the closing counts of warnings and errors, which speak of the logger too."""
    return text.rsplit("\n\n", 2)[0].split("\n")


def same(ours: Any, theirs: Any, tolerance: float = 2e-6) -> bool:
    if isinstance(ours, float) or isinstance(theirs, float):
        a, b = float(ours), float(theirs)
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) == math.isnan(b)
        return number(a) == number(b) or math.isclose(a, b, rel_tol=tolerance)
    if isinstance(theirs, str) and isinstance(ours, str):
        return ours.replace("\n", " ") == theirs.replace("\n", " ")
    return bool(ours == theirs)


def _same_line(a: str, b: str) -> bool:
    if a == b:
        return True
    left, _, x = a.rpartition(": ")
    right, _, y = b.rpartition(": ")
    try:
        return left == right and math.isclose(float(x), float(y), rel_tol=2e-5)
    except ValueError:
        return False
