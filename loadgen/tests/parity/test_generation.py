"""Our sample indices and schedules against the official wheel's, on randomly drawn settings."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from pathlib import Path

import cases
import official
import pytest
import replay
from cases import Case

from loadgen import samples, schedule
from loadgen.settings import Mode, effective


def generation_differences(case: Case, seen: official.Observed) -> list[str]:
    """Loaded sets, generated counts and durations, and every issued index."""
    settings = effective(case.settings, case.total, case.performance)
    mode = case.settings.mode
    sets = samples.loadable_sets(settings, mode, case.total)
    sets = sets if mode is Mode.AccuracyOnly else sets[:1]
    found = [] if [list(s.indices) for s in sets] == seen.loads else ["loaded sets"]
    issued = [index for query in seen.queries for index in query]
    for k, loaded in enumerate(sets):
        series = schedule.plan(settings, mode, loaded)
        if series.query_count != seen.values("generated_query_count")[k]:
            found.append(f"set {k}: generated_query_count")
        if series.duration_ns != seen.values("generated_query_duration")[k]:
            found.append(f"set {k}: generated_query_duration")
        # An official performance run may stop before it has issued everything that it generated.
        count = len(series.indices) if mode is Mode.AccuracyOnly else len(issued)
        if series.indices[:count].tolist() != issued[:count]:
            found.append(f"set {k}: indices")
        issued = issued[count:]
    return found if not issued else [*found, "more was issued than planned"]


def requested_differences(case: Case, seen: official.Observed) -> list[str]:
    """The requested_* and effective_* entries of the detail log."""
    from loadgen.detail import effective_entries, requested_entries

    settings = effective(case.settings, case.total, case.performance)
    ours = [*requested_entries(settings), *effective_entries(settings)]
    theirs = [(e["key"], e["value"]) for e in seen.detail if e["key"].startswith(("requested_", "effective_"))]
    if [k for k, _ in ours] != [k for k, _ in theirs]:
        return [f"keys {[k for k, _ in ours]} != {[k for k, _ in theirs]}"]
    return [
        f"{k}: official {b!r}, ours {a!r}" for (k, a), (_, b) in zip(ours, theirs, strict=True) if not replay.same(a, b)
    ]


def result_differences(case: Case, seen: official.Observed) -> list[str]:
    if case.settings.mode is not Mode.PerformanceOnly:
        return []
    settings = effective(case.settings, case.total, case.performance)
    first = samples.loadable_sets(settings, case.settings.mode, case.total)[0]
    series = schedule.plan(settings, case.settings.mode, first)
    return replay.differences(seen, settings, series.samples_per_query)


@pytest.fixture(scope="module")
def coverage() -> Iterator[collections.Counter[str]]:
    counts: collections.Counter[str] = collections.Counter()
    yield counts
    print(f"\nmlcommons-loadgen {official.VERSION}:", ", ".join(f"{k} {n}" for k, n in counts.most_common()))


def test_drawn_cases(tmp_path: Path, request: pytest.FixtureRequest, coverage: collections.Counter[str]) -> None:
    """No difference in what is loaded, issued, scheduled, derived, judged or printed."""
    seed, count = request.config.getoption("--seed"), request.config.getoption("--cases")
    mismatches = []
    for k, case in enumerate(cases.draw_all(seed, count, official.REVISION)):
        seen = official.run(case.settings, case.total, case.performance, tmp_path / str(k), trace=True)
        found = generation_differences(case, seen) + requested_differences(case, seen)
        found += result_differences(case, seen)
        coverage.update(["cases", *case.labels()])
        if found:
            mismatches.append((k, case, found))
            coverage["mismatches"] += 1
        for file in (tmp_path / str(k)).iterdir():
            file.unlink()
    for k, case, found in mismatches[:5]:
        print(f"case {k}: {case}\n  " + "\n  ".join(found))
    coverage["mismatches"] += 0
    assert not mismatches, f"{len(mismatches)} of {count} cases differ (seed {seed})"
