"""Replays the latencies of an official run through our judgement and compares everything reported."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from official import Observed

from loadgen.detail import verdict_entries
from loadgen.logs import number
from loadgen.results import Records, judge
from loadgen.settings import EffectiveSettings, Scenario
from loadgen.summary import summary_text


# Streams of tokens only: their start is known from a rate of six digits, and these are divided by the time since.
_FROM_A_RATE = {"result_completed_tokens_per_second", "result_token_throughput_with_loadgen_overhead"}


def _ns(text: float) -> int:
    return round(text * 1000)  # the trace has microseconds with three decimals


def records(observed: Observed, settings: EffectiveSettings, samples_per_query: int) -> Records:
    """The columns of an official performance run, out of its trace."""
    samples: dict[int, tuple[int, dict[str, Any]]] = {}
    first: dict[int, int] = {}
    for line in observed.trace():
        if line.startswith('{"name":"Sample"') and '"ph":"b"' in line:
            event = json.loads(line.rstrip().rstrip(","))
            samples[event["args"]["sample_seq"]] = (_ns(event["ts"]), event["args"])
        elif line.startswith('{"name":"Token"') and '"ph":"b"' in line:
            event = json.loads(line.rstrip().rstrip(","))
            first[event["args"]["sample_seq"]] = _ns(event["ts"]) + event["args"]["complete_ns"]
        elif line.startswith('{"name":"Token_Latency"'):  # Server has these instead, in issue order
            event = json.loads(line.rstrip().rstrip(","))
            args = event["args"]
            first[len(first)] = _ns(event["ts"]) + args["issue_delay"] + args["issue_to_done"]
    rows = [samples[i] for i in sorted(samples)]
    scheduled = np.array([ts for ts, _ in rows], np.int64)
    completed = scheduled + np.array([a["complete_ns"] for _, a in rows])
    issued = scheduled + np.array([a["issue_start_ns"] for _, a in rows])
    tokens = settings.requested.use_token_latencies
    n_tokens = np.array([2 + a["sample_idx"] % 5 for _, a in rows])
    start = _start(observed, settings, scheduled, issued, int(n_tokens.sum()))
    first_token = None
    if tokens and settings.scenario is not Scenario.Offline:
        first_token = np.array([first[i] for i in sorted(first)]) - start
    return Records(
        scheduled_ns=(scheduled - start)[::samples_per_query],
        issued_ns=(issued - start)[::samples_per_query],
        completed_ns=completed - start,
        samples_per_query=samples_per_query,
        first_token_ns=first_token,
        n_tokens=n_tokens if tokens else None,
    )


def _start(observed: Observed, settings: EffectiveSettings, scheduled: Any, issued: Any, tokens: int) -> int:
    """When the series began. The trace does not say it for streams; the reported rate does."""
    if settings.scenario in (Scenario.Server, Scenario.Offline):
        return int(scheduled[0])
    count = len(scheduled) - 1
    if settings.scenario is Scenario.SingleStream and count:
        rate = float(observed.summary.split("QPS w/ loadgen overhead         : ")[1].split("\n")[0])
    elif settings.requested.use_token_latencies:
        rate = observed.values("result_token_throughput_with_loadgen_overhead")[0]
        count = tokens
    else:  # at most the sign of a zero depends on it
        return int(scheduled[0]) - 1
    start = round(issued[-1] - count / rate * 1e9)
    # the digits of a rate place the start to a part in 10**5 of the run
    assert -1e-5 * (issued[-1] - start) - 1 <= scheduled[0] - start < 5e6
    return start


def differences(observed: Observed, settings: EffectiveSettings, samples_per_query: int) -> list[str]:
    """Every reported value, detail and summary, that differs between the official run and ours."""
    replayed = records(observed, settings, samples_per_query)
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
