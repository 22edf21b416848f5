"""A result with power: the folders of a session, and the energy that its meter saw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from loadgen.submission.checks.context import Subject
from loadgen.submission.checks.meter import POWER, TIME_FORMAT, load_span, samples
from loadgen.submission.checks.performance import Measured, run_of
from loadgen.submission.checks.ptd import check_session
from loadgen.submission.findings import Finding
from loadgen.submission.reading import reason
from loadgen.submission.requirements import STREAMS


def has_power(subject: Subject) -> bool:
    return subject.at(f"{subject.place.path}/performance/power").exists()


def check_power(subject: Subject) -> Iterator[Finding]:
    """The three folders, the window of the load, and the session."""
    place = f"{subject.place.path}/performance"
    tree = subject.requirements.tree
    runs = (*tree.performance_files, *tree.power_performance_files)
    for name, wanted, optional in (("ranging", runs, tree.performance_optional), ("power", tree.power_files, ())):
        odd = subject.odd_files(f"{place}/{name}", wanted, optional)  # run_1 has a rule of its own
        if odd:
            yield subject.finding("power-files", f"{place}/{name}", "", ", ".join(odd), ", ".join(wanted))
    for name in ("ranging", "run_1"):
        yield from _window(subject, f"{place}/{name}")
    for rule, file, key, observed, required, official in check_session(subject.at(place)):
        yield subject.finding(rule, f"{place}/{file}", key, observed, required, official)


def _window(subject: Subject, folder: str) -> Iterator[Finding]:
    log = run_of(subject, folder).log
    span = load_span(log)
    if span is None:
        yield subject.finding("power-window", f"{folder}/mlperf_log_detail.txt", "power_begin, power_end", "not there")
        return
    try:
        watts = list(samples(subject.at(f"{folder}/{POWER}"), span))
    except (OSError, ValueError, IndexError) as error:
        yield subject.finding("power-samples", f"{folder}/{POWER}", "", reason(error), "lines of a power log")
        return
    if not any(sample.watts > 0 for sample in watts):
        window = " to ".join(moment.strftime(TIME_FORMAT)[:-3] for moment in span)
        yield subject.finding("power-samples", f"{folder}/{POWER}", "", "none above 0 W", f"some from {window} UTC")


@dataclass(frozen=True)
class Power:
    """What a result took."""

    metric: float
    """Watts; of a stream millijoules a query."""
    efficiency: float
    """Samples, or what the result counts, a joule."""
    watts: float


def power_of(subject: Subject, measured: Measured) -> Power | None:
    """The official figure: the mean of the positive samples while the load ran. None: there is none."""
    run = run_of(subject, f"{subject.place.path}/performance/run_1")
    span = load_span(run.log)
    if span is None or measured.value is None:
        return None
    try:
        watts = [one.watts for one in samples(subject.at(run.path).with_name(POWER), span) if one.watts > 0]
    except (OSError, ValueError, IndexError):
        return None
    if not watts:
        return None
    mean, seconds = sum(watts) / len(watts), (span[1] - span[0]).total_seconds()
    if subject.place.scenario not in STREAMS:
        return Power(mean, measured.value / mean, mean)
    queries, size = run.log.number("result_query_count"), 8 if subject.place.scenario == "MultiStream" else 1
    if not queries:
        return None
    of_eight = size if run.scenario == "SingleStream" else 1  # a MultiStream query stands for eight of a SingleStream's
    metric = mean * seconds * 1000 * of_eight / queries
    return Power(metric, size * 1000 / metric, mean)
