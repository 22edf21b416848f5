"""A result's folder below compliance/: the tests that its model needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from loadgen.compliance.performance import Speed, compare, keys_of
from loadgen.settings import Scenario
from loadgen.submission.catalogue import official_of
from loadgen.submission.checks.accuracy import scores
from loadgen.submission.checks.context import Subject
from loadgen.submission.checks.performance import Run, check_run, counted_errors, run_of
from loadgen.submission.findings import Finding, Official
from loadgen.submission.reading import read_text

_RAISES = ("log-unreadable", "log-key-missing")
"""Where the official checker's judgement of a log ends with an exception."""
_PASSES = "TEST PASS"
_TEST06 = {
    "first token": ("First token check pass: True", "First token check pass: Skipped"),
    "end of the answer": ("EOS check pass: True",),
    "length": ("Sample length check pass: True",),
}
_LOGGED = (
    "accuracy_log_rng_seed",
    "accuracy_log_sampling_target",
    "performance_issue_same",
    "performance_issue_same_index",
    "performance_issue_unique",
)
"""What a test sets, and its run's log shows as it was set."""


def check_audits(subject: Subject) -> Iterator[Finding]:
    """Every test that the model needs, in a division that needs them."""
    tests = subject.needs.rules.compliance
    if not tests or not subject.place.is_strict:
        return
    place = subject.place.compliance
    if not subject.at(place).is_dir():
        yield subject.finding("compliance-missing", place, observed="not there", required=", ".join(tests))
        return
    judged_before = False
    for test in tests:
        folder = f"{place}/{test}"
        if not subject.at(folder).is_dir():
            yield subject.finding("compliance-test-missing", folder, observed="not there")
            continue
        yield from _run(subject, test, folder, judged_before)
        judged_before = True
        if test == "TEST01":
            yield from _answers(subject, folder)
        elif test == "TEST06":
            yield from _tokens(subject, folder)


def _run(subject: Subject, test: str, folder: str, judged_before: bool) -> Iterator[Finding]:
    """The test's own run. TEST06's is short on purpose, and the official checker does not look at it."""
    run = run_of(subject, f"{folder}/performance/run_1", test)
    if test != "TEST06":
        found, verdict = list(check_run(run)), list(_performance(subject, folder))
        yield from _as_officially(found, judged_before or bool(verdict))
        yield from verdict
        if not found:
            yield from _rate(subject, test, run)
    elif run.log.fault or counted_errors(run.log, subject):
        observed = run.log.fault or run.log.errors[0]
        yield run.finding("compliance-log", "", observed, "a log without errors", Official.SILENT)
        return
    for key, wanted in _settings(subject, test).items():
        if not run.log.fault and run.log.values.get(key) != wanted:
            yield run.finding("compliance-settings", key, required=wanted)


def _settings(subject: Subject, test: str) -> dict[str, int]:
    """Key of the detail log -> what the test sets."""
    conf = dict(subject.requirements.round.tests[test].conf.get("*", {}))
    if test == "TEST01":
        conf["accuracy_log_sampling_target"] = subject.needs.rules.logged_samples
    return {f"effective_{key}": conf[key] for key in _LOGGED if key in conf}


def _as_officially(found: list[Finding], judged_before: bool) -> Iterator[Finding]:
    """Where the judgement of a log raises, the official checker takes the verdict of the test before it.

    Without one before it, it ends with a traceback, unless it has refused the test already.
    """
    raises = any(finding.rule in _RAISES for finding in found)
    for finding in found:
        if not raises:
            yield finding
        elif finding.rule in _RAISES:
            official = Official.SILENT if judged_before else Official.STOPS
            yield replace(finding, rule="compliance-log", key=finding.key or "the detail log", official=official)
        elif official_of(finding) is Official.FAILS:
            yield replace(finding, official=Official.SILENT)
        else:
            yield finding


def _performance(subject: Subject, folder: str) -> Iterator[Finding]:
    path = f"{folder}/verify_performance.txt"
    if not subject.at(path).exists():
        yield subject.finding("compliance-verdict-missing", path, observed="not there")
        return
    said, fault = read_text(subject.at(path))
    if said is None:
        yield subject.finding("compliance-performance", path, "", fault, _PASSES, Official.STOPS)
    elif _PASSES not in said:
        yield subject.finding("compliance-performance", path, "", _last_line(said), _PASSES)
    place = f"{folder}/performance/run_1"
    if not subject.at(place).is_dir():
        yield subject.finding("compliance-run-missing", place, observed="not there")
        return
    tree = subject.requirements.tree
    odd = subject.odd_files(place, tree.performance_files, tree.performance_optional)
    if odd:
        yield subject.finding("compliance-files", place, "", ", ".join(odd), ", ".join(tree.performance_files))


def _last_line(said: str) -> str:
    return ([line for line in said.splitlines() if line.strip()] or ["nothing"])[-1]


def _rate(subject: Subject, test: str, run: Run) -> Iterator[Finding]:
    """The test's figure beside the result's, by the test's bounds in the units of the logs."""
    if run.scenario not in Scenario.__members__:
        return  # the log is not there
    rules, scenario = subject.requirements.round.tests[test], Scenario[run.scenario]
    before = subject.place.compliance + f"/{rules.reference}" if rules.reference else subject.place.path
    reference = run_of(subject, f"{before}/performance/run_1")
    if reference.log.fault or reference.scenario != run.scenario or reference.log.text("result_validity") != "VALID":
        return  # which is found elsewhere
    keys = keys_of(rules, subject.requirements.round.early_stopping)
    one, other = (_speed(each, keys[scenario]) for each in (reference, run))
    if one.figure <= 0 or one.target_latency_ns != other.target_latency_ns:
        return
    check, _ = compare(rules, scenario, one, other)
    if not check.passed:
        yield run.finding("compliance-rate", "the figure", check.said, "that of the result, within the test's bounds")


def _speed(run: Run, key: str) -> Speed:
    figure, target = (run.log.number(one) or 0 for one in (key, "effective_target_latency_ns"))
    return Speed(run.scenario, figure, True, 0, int(target))


def _answers(subject: Subject, folder: str) -> Iterator[Finding]:
    """TEST01: equal answers, or scores that agree."""
    path, place = f"{folder}/verify_accuracy.txt", f"{folder}/accuracy"
    if not subject.at(path).exists():
        yield subject.finding("compliance-answers-missing", path, observed="not there")
        return
    said, fault = read_text(subject.at(path))
    if said is None:
        yield subject.finding("compliance-answers-missing", path, "", fault, "", Official.STOPS)
        return
    if not subject.at(place).is_dir():
        yield subject.finding("compliance-accuracy-missing", place, observed="not there")
        return
    equal = _PASSES in said
    tree = subject.requirements.tree
    wanted = [*tree.test01_accuracy_files, *(() if equal else tree.test01_score_files)]
    odd = subject.odd_files(place, wanted)
    if odd:
        yield subject.finding("compliance-accuracy-files", place, "", ", ".join(odd), ", ".join(wanted))
    elif not equal:
        yield from _deltas(subject, place)


def _deltas(subject: Subject, place: str) -> Iterator[Finding]:
    """The scores of the samples that both runs logged: 1 % apart at most, or 0.1 %."""
    allowed = subject.requirements.round.tests["TEST01"].max_score_change.get(subject.needs.ratio, 0.01)
    baseline, tested = (_scores(subject, f"{place}/{name}_accuracy.txt") for name in ("baseline", "compliance"))
    for name in subject.needs.limits:
        one, other = baseline.get(name), tested.get(name)
        path, most = f"{place}/compliance_accuracy.txt", subject.needs.rules.metrics[name].max_change or allowed
        if isinstance(one, str) or isinstance(other, str):
            yield subject.finding("compliance-delta", path, name, f"{one}, {other}", "numbers", Official.STOPS)
        elif not one or not other:
            yield subject.finding("compliance-delta", path, name, "a score is not there", "both scores")
        elif abs(1 - one / other) * 100 > 100 * most:
            yield subject.finding("compliance-delta", path, name, f"{one} and {other}", f"{100 * most:g} % at most")


def _scores(subject: Subject, path: str) -> dict[str, float | str]:
    """Score's name -> number; a text that is none stays as it is."""
    found: dict[str, float | str] = {}
    for name, said in scores(read_text(subject.at(path))[0] or "", dict(subject.needs.rules.metrics)):
        found[name] = float(said) if re.fullmatch(r"\d+\.?\d*|\.\d+", said) else said
    return found


def _tokens(subject: Subject, folder: str) -> Iterator[Finding]:
    path = f"{folder}/verify_accuracy.txt"
    if not subject.at(path).exists():
        yield subject.finding("compliance-answers-missing", path, observed="not there")
        return
    said, fault = read_text(subject.at(path))
    if said is None:
        yield subject.finding("compliance-tokens", path, "", fault, "", Official.STOPS)
        return
    lines = {line.strip() for line in said.splitlines()}
    for what, wanted in _TEST06.items():
        if not lines.intersection(wanted):
            yield subject.finding("compliance-tokens", path, what, "not passed", wanted[0])
