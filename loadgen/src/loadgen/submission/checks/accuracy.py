"""A result's folder accuracy/: scores, the log that they are of, and its hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from loadgen.rules import Metric
from loadgen.submission.catalogue import official_of
from loadgen.submission.checks.context import Subject
from loadgen.submission.checks.performance import INFERRED_FROM
from loadgen.submission.findings import Finding, Official
from loadgen.submission.reading import files, read_log, read_text

_WITH_RULES = {"mlperf_log_detail.txt", "mlperf_log_accuracy.json"}
"""Files whose absence has a rule of its own."""
_HASH = re.compile(r"^hash=([\w\d]+)$", re.M)


def check_accuracy(subject: Subject) -> Iterator[Finding]:
    """All of accuracy/. In open the official checker takes a result whatever its score is."""
    place = f"{subject.place.path}/accuracy"
    if not subject.at(f"{place}/accuracy.txt").is_file():
        yield subject.finding("accuracy-missing", f"{place}/accuracy.txt", observed="not there")
        return
    wanted = subject.requirements.tree.accuracy_files
    odd = [name for name in subject.odd_files(place, wanted) if name not in _WITH_RULES]
    if odd:
        yield subject.finding("accuracy-files", place, observed=", ".join(odd), required=", ".join(wanted))
    for check in (_scores, _log, _detail, _images):
        for finding in check(subject, place):
            yield finding if subject.place.is_strict else _forgiven(finding)


def _forgiven(finding: Finding) -> Finding:
    return replace(finding, official=Official.LOGS) if official_of(finding) is Official.FAILS else finding


def scores(text: str, metrics: dict[str, Metric]) -> Iterator[tuple[str, str]]:
    """(score's name, number as it stands) of each that the lines of accuracy.txt have."""
    for line in text.splitlines():
        for name, metric in metrics.items():
            anywhere = metric.regex.startswith(("'", "^"))
            match = re.search(metric.regex, line) if anywhere else re.match(metric.regex, line)
            if match:
                yield name, match[1]


def first_score(subject: Subject) -> str:
    """What accuracy.txt says of the model's first score; empty: nothing."""
    text, _ = read_text(subject.at(f"{subject.place.path}/accuracy/accuracy.txt"))
    first = next(iter(subject.needs.rules.metrics))
    return ([said for name, said in scores(text or "", dict(subject.needs.rules.metrics)) if name == first] or [""])[-1]


def _scores(subject: Subject, place: str) -> Iterator[Finding]:
    path = f"{place}/accuracy.txt"
    text, fault = read_text(subject.at(path))
    if text is None:
        yield subject.finding("score-unreadable", path, observed=fault)
        return
    seen: set[str] = set()
    passed: set[str] = set()
    has_hash, wanted = False, set(subject.needs.limits)
    for line in text.splitlines():
        official = Official.SILENT if has_hash and passed >= wanted else None  # it reads on no further
        for name, said in scores(line, dict(subject.needs.rules.metrics)):
            seen.add(name)
            found = list(_judged(subject, path, name, said))
            passed |= set() if any(finding.rule != "score-high" for finding in found) else {name}
            yield from (replace(finding, official=official) for finding in found)
        has_hash = has_hash or bool(_HASH.match(line))
    for name in sorted(wanted - seen):
        yield subject.finding("score-missing", path, name, _line_of(text, name), "a plain number")
    yield from _hash(subject, path, text)


def _judged(subject: Subject, path: str, name: str, said: str) -> Iterator[Finding]:
    try:
        value = float(said)
    except ValueError:
        yield subject.finding("score-unreadable", path, name, said, "one number")
        return
    low, high = subject.needs.limits[name] if subject.place.is_strict else (None, None)  # open claims no target
    if low is not None and value < low:
        yield subject.finding("score-low", path, name, said, f">= {low:.6g}")
    if high is not None and value > high:
        yield subject.finding("score-high", path, name, said, f"<= {high:.6g}")


def _line_of(text: str, name: str) -> str:
    """What stands where the score should."""
    return next((line for line in text.splitlines() if name.lower() in line.lower()), "not there")


def _hash(subject: Subject, path: str, text: str) -> Iterator[Finding]:
    match = _HASH.search(text)
    if not match:
        yield subject.finding("hash-missing", path, "hash", "not there")
        return
    if not re.fullmatch("[0-9a-f]{64}", match[1]):
        yield subject.finding("hash-form", path, "hash", match[1], "64 of 0-9, a-f")
        return
    log = subject.at(path).with_name("mlperf_log_accuracy.json")
    whole = _small(log, subject.requirements.tree.kept_accuracy_log_bytes)
    if whole is not None and hashlib.sha256(whole).hexdigest() != match[1]:
        observed = f"{hashlib.sha256(whole).hexdigest()} by the log"
        yield subject.finding("hash-wrong", path, "hash", match[1], observed)


def _small(log: Path, kept: int) -> bytes | None:
    """A log that shortening leaves as it is; None: there is none, or it is longer."""
    try:
        return log.read_bytes() if log.stat().st_size < kept else None
    except OSError:
        return None


def _log(subject: Subject, place: str) -> Iterator[Finding]:
    path = f"{place}/mlperf_log_accuracy.json"
    file, most = subject.at(path), subject.requirements.tree.max_accuracy_log_bytes
    if not file.is_file():
        yield subject.finding("accuracy-log-missing", path, observed="not there")
    elif file.stat().st_size > most:
        yield subject.finding("accuracy-log-long", path, "", f"{file.stat().st_size} bytes", f"at most {most}")


def _detail(subject: Subject, place: str) -> Iterator[Finding]:
    path = f"{place}/mlperf_log_detail.txt"
    log = read_log(subject.at(path))
    if log.is_missing:
        yield subject.finding("accuracy-detail-missing", path, observed="not there")
        return
    if log.fault:
        yield subject.finding("accuracy-detail-unreadable", path, observed=log.fault)
        return
    for error in log.errors[:3]:
        yield subject.finding("accuracy-log-errors", path, "", error, "none")
    mode, scenario = (str(log.values.get(key)) for key in ("effective_test_mode", "effective_scenario"))
    if mode != "AccuracyOnly":
        yield subject.finding("accuracy-mode", path, "effective_test_mode", mode, "AccuracyOnly")
    allowed = {subject.place.scenario, *INFERRED_FROM.get(subject.place.scenario, ())}
    if scenario not in allowed:
        yield subject.finding("accuracy-scenario", path, "effective_scenario", scenario, subject.place.scenario)
    count, wanted = log.number("qsl_reported_total_count"), subject.needs.rules.dataset_size
    if wanted and (count is None or count < wanted):
        yield subject.finding(
            "accuracy-samples", path, "qsl_reported_total_count", log.values.get("qsl_reported_total_count"), wanted
        )


def _images(subject: Subject, place: str) -> Iterator[Finding]:
    wanted = [str(image) for image in subject.needs.rules.images]
    if not wanted:
        return
    there = {name.split(".")[0] for name in files(subject.at(f"{place}/images"))}
    missing = [name for name in wanted if name not in there]
    if missing:
        yield subject.finding("accuracy-images", f"{place}/images", "", f"without {', '.join(missing)}", "all")
    if "captions" not in there:
        yield subject.finding("accuracy-captions", f"{place}/images/captions.txt", "", "not there")
