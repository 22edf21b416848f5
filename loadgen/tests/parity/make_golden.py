"""Records runs of the official wheel at hand for `tests/test_golden.py`: `python make_golden.py`.

The cases are fixed; the times in the file are those of the run that wrote it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import cases
import mirror
import numpy as np
import official
import replay
from cases import Case
from official import Observed

from loadgen.settings import Mode, TestSettings, effective

FOLDER = Path(__file__).parents[1] / "golden"
SEED = 17
MOST_TIMES = 100  # samples whose times are recorded; of longer runs only the sequences are
PER_SCENARIO = {"4.0": 10, "6.0": 5}
DETAILS = "samples_per_query target_qps target_duration_ms min_query_count min_sample_count performance_sample_count"


def main() -> None:
    """Write the file of this wheel's release."""
    FOLDER.mkdir(exist_ok=True)
    release = official.REVISION.value
    with tempfile.TemporaryDirectory() as scratch:
        lines = [json.dumps(line, separators=(",", ":")) for line in _recorded(Path(scratch), PER_SCENARIO[release])]
    path = FOLDER / f"{release.replace('.', '_')}.json"
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{path.name}: {len(lines)} cases of mlcommons-loadgen {official.VERSION}, {path.stat().st_size} bytes")


def _recorded(scratch: Path, per_scenario: int) -> Iterator[dict[str, Any]]:
    taken: Counter[str] = Counter()
    for k, case in enumerate(cases.draw_all(SEED, 400, official.REVISION)):
        scenario = case.settings.scenario.name
        if case.audit or case.settings.test05 or case.manner.is_reversed or taken[scenario] == per_scenario:
            continue
        seen = official.run(case, scratch / str(k)).read()
        if taken[scenario] % 3 and not _times(case, seen):  # times of two in three
            continue
        taken[scenario] += 1
        yield _record(case, seen)


def _record(case: Case, seen: Observed) -> dict[str, Any]:
    """What the test needs of one run."""
    if differing := mirror.differences(case, seen):
        raise SystemExit(f"ours differs from the official run, so nothing is recorded: {case}: {differing}")
    defaults = TestSettings(revision=official.REVISION)
    chosen = {f.name: getattr(case.settings, f.name) for f in fields(defaults)}
    chosen = {name: value for name, value in chosen.items() if value != getattr(defaults, name)}
    return {
        "settings": {k: v if isinstance(v, (int, float)) else v.name for k, v in chosen.items()},
        "total": case.total,
        "performance": case.performance,
        "sets": [digest(indices) for indices in seen.loads],
        "generated": [
            [seen.values(f"generated_{name}")[k] for name in ("query_count", "query_duration")]
            for k in range(len(seen.loads))
        ],
        "indices": digest([index for query in seen.queries for index in query]),
        "due": [digest(due) for due in _dues(case, seen)],
        "logged": digest([entry["seq_id"] for entry in json.loads(seen.accuracy)]),
        "detail": {name: seen.values(f"effective_{name}")[0] for name in DETAILS.split()},
        **_times(case, seen),
    }


def digest(numbers: Sequence[int]) -> list[Any]:
    """[how many, SHA-256 of them in decimal, the first ten]."""
    text = ",".join(map(str, numbers))
    return [len(numbers), hashlib.sha256(text.encode()).hexdigest(), list(numbers[:10])]


def _spans(case: Case, seen: Observed) -> list[slice]:
    """The rows of each series in the trace."""
    ours = effective(case.settings, case.total, case.performance)
    counts = [q * s for q, s in _sizes(seen)]
    if ours.scenario.name == "Offline":  # release 4.0 reports what was asked for
        counts = [len(query) for query in seen.queries]
    ends = np.minimum(np.cumsum(counts), len(seen.trace.indices)).tolist()
    return [slice(low, high) for low, high in zip([0, *ends], ends, strict=False)]


def _sizes(seen: Observed) -> Iterator[tuple[int, int]]:
    return zip(seen.values("generated_query_count"), seen.values("generated_samples_per_query"), strict=True)


def _dues(case: Case, seen: Observed) -> list[list[int]]:
    if case.settings.scenario.name != "Server":
        return []
    rows = seen.trace.scheduled
    return [(rows[span] - rows[span.start]).tolist() for span in _spans(case, seen)]


def _times(case: Case, seen: Observed) -> dict[str, Any]:
    """Times and everything reported of a short performance series; {} of others."""
    if case.settings.mode is not Mode.PerformanceOnly or len(seen.trace.indices) > MOST_TIMES:
        return {}
    ours = effective(case.settings, case.total, case.performance)
    span = slice(0, len(seen.trace.indices))
    size = len(seen.queries[0]) if case.settings.scenario.name in ("MultiStream", "Offline") else 1
    start = replay.starts(ours, seen, 0, span)
    best = min(start, key=lambda at: len(replay.differences(seen, ours, size, span, at)))
    columns = replay.records(ours, seen, size, span, best)
    times = {
        "scheduled": np.diff(columns.scheduled_ns, prepend=0).tolist(),
        "delay": (columns.issued_ns - columns.scheduled_ns).tolist(),
        "latency": columns.latencies_ns.tolist(),
    }
    if columns.first_token_ns is not None:
        times["first_token"] = (columns.completed_ns - columns.first_token_ns).tolist()
    if columns.n_tokens is not None:
        times["n_tokens"] = columns.n_tokens.tolist()
    reported = {e["key"]: e["value"] for e in seen.detail if e["key"].startswith(("result_", "early_"))}
    return {"samples_per_query": size, "times": times, "reported": reported}


if __name__ == "__main__":
    main()
