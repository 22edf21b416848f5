"""The `comply` command: run the round's compliance tests, judge them, and place what a submission needs of them.

A test is a performance run with other settings, laid over those of the performance run that it is compared with. They
come from the rules, not from an audit.config, so nothing has to be copied to the working directory and back.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from loadgen.compliance import Check, Runs, Verdict, place, verify
from loadgen.conf import Text, settings_from
from loadgen.errors import InputError
from loadgen.harness.files import saving, whole_file
from loadgen.harness.plan import Plan
from loadgen.harness.report import record, screen
from loadgen.harness.run import Bench, execute
from loadgen.harness.scoring import score_part
from loadgen.results import Result
from loadgen.rules import Round, load_round
from loadgen.settings import Mode, Revision, Scenario, TestSettings

FOLDER, FILE = "compliance", "compliance.json"


def comply(plan: Plan, asked: str) -> int:
    """The command: first the tests of a run that its folder lacks, then the compliance tests. Returns the exit code.

    asked: "auto" for those of the round, or names with commas. Raises InputError for a name that the round has not.
    """
    tests = chosen(plan, asked)
    out = screen.console(plan.request.quiet)
    if not tests:
        out.print(f"Round {plan.request.overrides.round} asks for no compliance test of {plan.benchmark.name}.")
        return 0
    done: list[Verdict] = []
    code = execute(plan, then=lambda bench: done.extend(_audit(bench, tests)))
    ratio = plan.ratios[0]
    failed = [one for one in done if not one.passed(ratio)]
    if done:
        out.print(_table(plan, done, ratio))
    for one in failed:
        for check in _failures(one, ratio):
            screen.console(quiet=False).print(
                f"{one.scenario.name} {one.test} FAILED: {check}", style="red", markup=False
            )
    return code or int(bool(failed) or not done)


def words_of_run(words: Sequence[str]) -> tuple[str, ...]:
    """The words of this command that `run` knows too, so that its folder can be resumed."""
    kept, after = [], False
    for word in words:
        if not after and word != "--tests" and not word.startswith("--tests="):
            kept.append(word)
        after = word == "--tests"
    return tuple(kept)


def chosen(plan: Plan, asked: str) -> tuple[str, ...]:
    """Names of tests, in the round's order."""
    rules = load_round(plan.request.overrides.round)
    if asked == "auto":
        return plan.rules.compliance
    names = [name.strip() for name in asked.split(",")]
    offered = _offered(rules, plan)
    for name in names:
        if name not in offered:
            raise InputError(
                f"--tests {name}: round {rules.name} has no such test of {plan.benchmark.name}: "
                f"choose auto or some of {', '.join(offered)}"
            )
    return tuple(name for name in offered if name in names or any(rules.tests[n].reference == name for n in names))


def _offered(rules: Round, plan: Plan) -> list[str]:
    """TEST01 needs a number of answers to log, TEST06 tokens."""
    has = {"TEST01": bool(plan.rules.logged_samples), "TEST06": plan.rules.token_limits is not None}
    return [name for name in rules.tests if has.get(name, True)]


def _audit(bench: Bench, tests: Sequence[str]) -> list[Verdict]:
    """Run and judge each test of each scenario. What they came to is in `compliance.json` as soon as it is known."""
    verdicts: list[Verdict] = []
    output, plan = bench.report.output, bench.plan
    references = {(test.scenario, test.mode): test for test in record.read(output).tests}
    records = _kept(output)
    for scenario in dict.fromkeys(test.settings.scenario for test in plan.tests):
        performance = references[scenario.name, Mode.PerformanceOnly.name]
        audit = _Audit(bench, scenario, performance, references[scenario.name, Mode.AccuracyOnly.name].folder)
        for test in tests:
            verdict = audit.run(test)
            bench.out.print(f"{scenario.name} {test}: {_word(verdict, plan.ratios[0])}", markup=False)
            verdicts.append(verdict)
            saved = {**verdict.record(plan.rules.ratios), "performance_finished": performance.finished}
            records[scenario.name, test] = saved
            with saving(output / FILE), whole_file(output / FILE) as part:
                part.write_text(json.dumps(list(records.values()), indent=1) + "\n")
    return verdicts


def _kept(output: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What earlier calls found in this folder, by scenario and test. Raises InputError if it cannot be told."""
    file = output / FILE
    try:
        return {(one["scenario"], one["test"]): one for one in json.loads(file.read_text())}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error!r}): remove it, and run its tests again") from error


@dataclass(frozen=True)
class _Audit:
    """The tests of one scenario."""

    bench: Bench
    scenario: Scenario
    reference: record.SavedTest
    """The performance run."""
    accuracy: Path
    """The accuracy run's folder."""

    def run(self, test: str) -> Verdict:
        """Run it, unless the performance run is INVALID, which nothing can be compared with; judge and place it."""
        folder = self.bench.report.output / FOLDER / self.scenario.name
        if not self.reference.valid:
            said = f"the performance run is INVALID: {'; '.join(self.reference.reasons) or 'see its logs'}"
            shutil.rmtree(folder / test, ignore_errors=True)  # it was of another performance run
            return Verdict(self.scenario, test, (Check("performance", False, said),))
        plan = self.bench.plan
        rules = load_round(plan.request.overrides.round)
        settings = _settings(rules, plan.benchmark.model, test, self.reference)
        with tempfile.TemporaryDirectory(dir=self.bench.report.output, prefix=f".{test}-") as place_of_logs:
            logs = Path(place_of_logs)
            result, _ = self.bench.measure(settings, logs, test)
            result.raise_failure()
            before = rules.tests[test].reference
            compared = folder / before / "performance" / "run_1" if before else self.reference.folder
            runs = Runs(compared, self.accuracy, logs)
            verdict = verify(rules, plan.benchmark.model, test, self.scenario, runs, partial(self._score))
            if not (result.valid or rules.tests[test].any_length):
                verdict = replace(verdict, checks=tuple(_with_reasons(check, result) for check in verdict.checks))
            placed = place(verdict, logs, folder)
        if before:
            shutil.copyfile(placed / "verify_performance.txt", folder / before / "verify_performance.txt")
        return verdict

    def _score(self, log: Path) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Of the samples in the test's log: by the accuracy run's answers, and by the log's own."""
        whole = self.accuracy / "mlperf_log_accuracy.json"
        plan, dataset = self.bench.plan, self.bench.dataset
        return score_part(plan, dataset, whole, log), score_part(plan, dataset, log, log)


def _with_reasons(check: Check, result: Result) -> Check:
    """Of a run that is INVALID, why. (TEST06 is too short to be VALID, and compares no performance.)"""
    if check.name != "performance":
        return check
    return replace(check, said=f"the test's run is INVALID: {'; '.join(result.reasons)}")


def _settings(rules: Round, model: str, test: str, reference: record.SavedTest) -> TestSettings:
    """Those of the performance run, and what the test sets instead."""
    kinds: dict[str, Any] = {"scenario": Scenario, "mode": Mode, "revision": Revision}
    known = {field.name for field in fields(TestSettings)}
    saved = {name: value for name, value in reference.settings.items() if name in known}
    base = TestSettings(**{name: kinds[name][value] if name in kinds else value for name, value in saved.items()})
    return settings_from(
        [Text(f"{test} of round {rules.name}", rules.audit_text(test, model))], model, base.scenario, base
    )


def _word(verdict: Verdict, ratio: float) -> str:
    return "PASS" if verdict.passed(ratio) else "FAIL"


def _failures(verdict: Verdict, ratio: float) -> list[Check]:
    """What made it fail. Answers that differ are no failure if their score is still right."""
    checks = [
        check for check in verdict.checks if not check.passed and not (verdict.scores and check.name == "accuracy")
    ]
    return [*checks, *(check for share, check in verdict.scores.items() if share == ratio and not check.passed)]


def _table(plan: Plan, done: Sequence[Verdict], ratio: float) -> Table:
    title = f"Compliance of {plan.benchmark.title}, round {plan.request.overrides.round}"
    made = Table(title=title, title_justify="left", show_edge=False)
    for name in ("scenario", "test", "found", "verdict"):
        made.add_column(name, no_wrap=name in ("test", "verdict"), overflow="fold")
    for one in done:
        checks = [*one.checks, *(check for share, check in one.scores.items() if share == ratio)]
        colour = "green" if one.passed(ratio) else "red"
        found = "\n".join(f"{check.name}: {check}" for check in checks)
        made.add_row(one.scenario.name, one.test, found, f"[{colour}]{_word(one, ratio)}[/]")
    return made
