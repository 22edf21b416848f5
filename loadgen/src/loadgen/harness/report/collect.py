"""The results of a run: each in `results.json` as soon as it is there, and at the end, however that comes, a report."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from loadgen.contracts import InputError, Loaded
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.machine import telemetry
from loadgen.harness.machine.description import describe
from loadgen.harness.machine.facts import machine
from loadgen.harness.peak import Tried
from loadgen.harness.plan import Layered, Plan
from loadgen.harness.report import provenance, rebuild, record, screen
from loadgen.harness.scoring import text
from loadgen.results import Result
from loadgen.rules import Accuracy
from loadgen.settings import Mode

EXIT_OK, EXIT_INVALID, EXIT_INPUT, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
ERRORS = "errors.txt"


@dataclass(frozen=True)
class _Done:
    """A finished test of this run."""

    row: screen.Row
    result: Result
    judged: tuple[Accuracy, ...]

    @property
    def missed(self) -> bool:
        return bool(self.judged) and not self.judged[0].met


class Report:
    """Collects the tests of one run."""

    def __init__(self, plan: Plan, output: Path, gpus: telemetry.Gpus) -> None:
        self.plan, self.output, self.gpus = plan, output, gpus
        self.system = describe(gpus)
        """What a submission says of the machine."""
        self.loaded: Sequence[Loaded] = ()
        """What each worker really uses, when the model is loaded."""
        self.shortfalls: tuple[str, ...] = ()
        """What keeps the run from being a benchmark result, whatever it measures."""
        self._done: dict[tuple[str, str], _Done] = {}
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}
        """By scenario and mode: those of earlier runs into this folder too."""
        self._machine = {**machine(), **gpus.facts, **_commit(plan)}
        self._files: dict[str, str] = {}

    def begin(self, loaded: Sequence[Loaded], shortfalls: tuple[str, ...]) -> tuple[Layered, ...]:
        """Take over what the folder has of an earlier run, and say which tests are to run.

        loaded: what each worker really uses; shortfalls: see `loadgen.harness.claims`. Raises InputError if the
        folder's results were measured otherwise.
        """
        self.loaded, self.shortfalls, self._files = loaded, shortfalls, provenance.files(self.plan)
        asked = {_key(test): test for test in self.plan.tests}
        file = self.output / record.FILE
        if file.exists():
            earlier = record.load(self.output)
            kept = {(test["scenario"], test["mode"]): test for test in earlier["tests"]}
            if self.plan.request.missing:
                done = {key for key, test in kept.items() if not test["interrupted"]}
                asked = {key: test for key, test in asked.items() if key not in done}
            kept = {key: test for key, test in kept.items() if key not in asked}
            if kept:
                _check_same(self._record(), earlier, file)
            self._entries = kept
        for scenario, mode in asked:
            place = self.output / scenario / record.KINDS[mode]
            if not (self.plan.request.missing and rebuild.answered(place)):
                rebuild.forget(place)
        record.write(self.output, self._record())
        return tuple(asked.values())

    def add(
        self,
        result: Result,
        judged: tuple[Accuracy, ...],
        seconds: float,
        folder: Path,
        layers: Layered,
        tried: Sequence[Tried] = (),
        figures: Sequence[float | None] = (),
    ) -> screen.Row:
        """Take in a finished test, in the place of an earlier one of its scenario and mode.

        tried: the tests that sought its rate; figures: of all its runs, in their order (`record.figure`).
        """
        accuracy = result.mode is Mode.AccuracyOnly
        row = screen.Row(
            scenario=result.scenario.name,
            mode="accuracy" if accuracy else "performance",
            measured=text(judged) if judged else _headline(result, layers) + _spread(figures),
            verdict="VALID" if result.valid else "INVALID",
            queries=result.query_count,
            seconds=seconds,
        )
        sampled = None if accuracy else telemetry.read(folder)
        place = folder.relative_to(self.output).as_posix()
        saved = record.entry(result, judged, layers, place, sampled.summary() if sampled else [])
        saved |= {"rates_tried": [asdict(one) for one in tried]} if tried else {}
        saved |= {"repeats": list(figures)} if len(figures) > 1 else {}
        self._entries[_key(layers)] = saved
        rebuild.save(self.output / row.scenario / row.mode, self._record(), saved)
        record.write(self.output, self._record())
        self._done[_key(layers)] = _Done(row, result, judged)
        self._keep_details(row, result)
        return row

    def _keep_details(self, row: screen.Row, result: Result) -> None:
        """Tracebacks of the system and its workers: on the screen, and in a file beside the results."""
        if not result.details:
            return
        said = "\n".join([f"{row.scenario} {row.mode}", *result.details])
        print(said, file=sys.stderr)
        with (self.output / ERRORS).open("a", encoding="utf-8") as file:
            file.write(said + "\n")

    @property
    def exit_code(self) -> int:
        done = self._done.values()
        if any(one.result.interrupted for one in done):
            return EXIT_INTERRUPTED
        if any(one.result.errors for one in done):
            return EXIT_FAILED
        return EXIT_OK if all(one.result.valid and not one.missed for one in done) else EXIT_INVALID

    def finish(self, out: Console) -> None:
        """Print the table and the reasons, write the report. What was measured is in `results.json` by now."""
        if not self._done:
            return
        out.print()
        out.print(screen.table(self.plan.benchmark.title, [one.row for one in self._done.values()], out.width))
        self._explain(screen.console(quiet=False) if self.exit_code else out)
        if self.plan.profile.is_official:
            out.print(screen.claim(self._shortfalls()), markup=False)
        else:
            out.print(f"The {self.plan.profile_name} profile is not a benchmark result: {self.plan.profile.summary}.")
        out.print(f"logs and results: {self.output}", soft_wrap=True)
        if any(one.result.details for one in self._done.values()):
            out.print(f"tracebacks: {self.output / ERRORS}", soft_wrap=True)
        try:
            from loadgen.harness.report.page import write_report  # matplotlib takes a second to import

            out.print(f"report: {write_report(self.output)}", soft_wrap=True)
        except KeyboardInterrupt:
            out.print(f"interrupted: no report was written; the command `report {self.output}` writes it")

    def _explain(self, out: Console) -> None:
        """Why a test is INVALID: said even if the rest is not (`--quiet`)."""
        for one in self._done.values():
            name = f"{one.row.scenario} {one.row.mode}"
            for reason in one.result.reasons:
                out.print(f"{name} is INVALID: {reason}", style="red", markup=False)
            if one.missed and self.plan.request.quiet:
                out.print(f"{name}: {one.row.measured}", style="red", markup=False)
        if self.plan.request.quiet and self.exit_code:
            out.print(f"logs and results: {self.output}", soft_wrap=True)

    def _shortfalls(self) -> list[str]:
        if not self.plan.profile.is_official:
            return list(self.shortfalls)
        return [*self.shortfalls, *_missed(self._entries, self.plan.tests)]

    def _record(self) -> dict[str, Any]:
        plan, shortfalls = self.plan, self._shortfalls()
        return {
            "schema": record.SCHEMA,
            "benchmark": plan.benchmark.name,
            "model": plan.benchmark.model,
            "title": plan.benchmark.title,
            "profile": plan.profile_name,
            "profile_summary": plan.profile.summary,
            "benchmark_result": not shortfalls,
            "shortfalls": shortfalls,
            "machine": self._machine,
            "system": self.system,
            "options": {**_options(plan), **_used(self.loaded)},
            "arguments": list(plan.request.arguments),
            "directory": str(Path.cwd()),
            "files": self._files,
            "tests": list(self._entries.values()),
        }


def _commit(plan: Plan) -> dict[str, str]:
    found = provenance.commit(f"bench_{plan.benchmark.name}") or provenance.commit("loadgen")
    return {"commit": found} if found else {}


def _headline(result: Result, layers: Layered) -> str:
    """The figure of the scenario, and beside Server's rate the latency that is judged."""
    head, limits = result.headline, record.against_limits(result.scenario.name, result.metrics, vars(layers.settings))
    if head is None:
        return "-"
    name = "" if limits else f"{head.name} "
    return f"{name}{head.value:,.4g} {head.unit}{limits or screen.tokens(result.metrics)}"


def _spread(figures: Sequence[float | None]) -> str:
    known = [figure for figure in figures if figure]
    if len(known) < 2:
        return ""
    return f"; median of {len(known)}, spread {100 * (max(known) - min(known)) / statistics.median(known):.1f} %"


def _key(test: Layered) -> tuple[str, str]:
    return test.settings.scenario.name, test.settings.mode.name


def _missed(recorded: Mapping[tuple[str, str], Mapping[str, Any]], asked: Iterable[Layered]) -> Iterator[str]:
    """What tests that did not pass, or were not run, keep from being a benchmark result."""
    for (scenario, mode), test in recorded.items():
        judged = (test["accuracy"] or {}).get("judged", [])
        if not test["valid"]:
            yield f"{scenario} {mode} is INVALID"
        elif judged and not judged[0]["met"]:
            yield f"{scenario} {mode} missed its accuracy target"
    for scenario in dict.fromkeys(name for name, _ in [*recorded, *map(_key, asked)]):
        for mode in ("PerformanceOnly", "AccuracyOnly"):
            if (scenario, mode) not in recorded:
                yield f"{scenario} has no {mode} test"


def _check_same(now: Mapping[str, Any], earlier: Mapping[str, Any], file: Path) -> None:
    """Results of one folder are of one system. Raises InputError that names what differs."""
    for part in ("benchmark", "profile", "options", "machine", "files"):
        one, other = now[part], earlier.get(part, now[part] if part == "files" else None)  # files were not kept once
        if one == other:
            continue
        pairs = [(part, one, other)]
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            pairs = [(k, one.get(k, "-"), other.get(k, "-")) for k in {**one, **other} if one.get(k) != other.get(k)]
        said = "; ".join(f"{name} {old} there, {new} now" for name, new, old in pairs)
        raise InputError(f"{file} holds results of another system ({said}): choose another folder by --output")


def _options(plan: Plan) -> dict[str, Any]:
    """What was measured, as the command line has it; settings of the tests stand with the tests."""
    asked = plan.request
    files = {"user_conf": asked.overrides.user_conf, "audit_conf": asked.overrides.audit_conf}
    return {
        "backend": plan.backend_name,
        "device": plan.device,
        "dtype": plan.dtype,
        **_batching(plan),
        **({} if asked.max_cost is None else {"max_cost": asked.max_cost}),
        "threads": asked.threads,
        "workers": str(asked.workers),
        "rules": asked.overrides.round,
        **{name: str(file) for name, file in files.items() if file},
    }


def _batching(plan: Plan) -> dict[str, Any]:
    """How samples become batches; a system of the benchmark's own may do it otherwise, and is only named."""
    if plan.benchmark.system != Benchmark.system:
        return {"system": plan.benchmark.system}
    return {"batch": plan.batch, "max_wait_ms": plan.request.max_wait_ms}


def _used(loaded: Sequence[Loaded]) -> dict[str, str]:
    """What the workers say that they use, each thing once."""
    versions = {f"{name} version": version for one in loaded for name, version in one.versions.items()}
    return {
        "device used": ", ".join(dict.fromkeys(one.device for one in loaded)),
        "dtype used": ", ".join(dict.fromkeys(one.dtype for one in loaded)),
        **versions,
    }
