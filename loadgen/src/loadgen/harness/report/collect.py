"""The results of a run as they come, and at its end, however that comes, the table, `results.json` and the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from loadgen.contracts import Loaded
from loadgen.harness.machine import telemetry
from loadgen.harness.machine.facts import machine
from loadgen.harness.plan import Layered, Plan
from loadgen.harness.report import record, screen
from loadgen.harness.scoring import text
from loadgen.results import Result
from loadgen.rules import Accuracy
from loadgen.settings import Mode

EXIT_OK, EXIT_INVALID, EXIT_INPUT, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
ERRORS = "errors.txt"


class Report:
    """Collects the tests of one run."""

    def __init__(self, plan: Plan, output: Path, gpus: telemetry.Gpus) -> None:
        self.plan, self.output, self.gpus = plan, output, gpus
        self.loaded: Sequence[Loaded] = ()
        """What each worker really uses, when the model is loaded."""
        self.results: list[Result] = []
        self.rows: list[screen.Row] = []
        self._judged: list[tuple[Accuracy, ...]] = []
        self._entries: list[dict[str, Any]] = []

    def add(
        self, result: Result, judged: tuple[Accuracy, ...], seconds: float, folder: Path, layers: Layered
    ) -> screen.Row:
        """Take in a finished test; its columns are in its folder by now, and leave memory."""
        accuracy = result.mode is Mode.AccuracyOnly
        row = screen.Row(
            scenario=result.scenario.name,
            mode="accuracy" if accuracy else "performance",
            measured=text(judged) if judged else screen.headline(result),
            verdict="VALID" if result.valid else "INVALID",
            queries=result.query_count,
            seconds=seconds,
        )
        sampled = None if accuracy else telemetry.read(folder)
        place = folder.relative_to(self.output).as_posix()
        self._entries.append(record.entry(result, judged, layers, place, sampled.summary() if sampled else []))
        self._judged.append(judged)
        self.results.append(replace(result, columns=None))
        self.rows.append(row)
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
        if any(r.interrupted for r in self.results):
            return EXIT_INTERRUPTED
        if any(r.errors for r in self.results):
            return EXIT_FAILED
        missed = any(judged and not judged[0].met for judged in self._judged)
        return EXIT_INVALID if missed or not all(r.valid for r in self.results) else EXIT_OK

    def finish(self, out: Console) -> None:
        """Print the table and the reasons, write `results.json` and the report."""
        if not self.results:
            return
        out.print()
        out.print(screen.table(self.plan.benchmark.title, self.rows))
        for row, result in zip(self.rows, self.results, strict=True):
            for reason in result.reasons:
                out.print(f"{row.scenario} {row.mode} is INVALID: {reason}", style="red", markup=False)
        if not self.plan.profile.is_official:
            out.print(f"The {self.plan.profile_name} profile is not a benchmark result: {self.plan.profile.summary}.")
        (self.output / record.FILE).write_text(json.dumps(self._record(), indent=1) + "\n")
        from loadgen.harness.report.page import write_report  # matplotlib takes a second to import

        out.print(f"logs and results: {self.output}", soft_wrap=True)
        if any(result.details for result in self.results):
            out.print(f"tracebacks: {self.output / ERRORS}", soft_wrap=True)
        out.print(f"report: {write_report(self.output)}", soft_wrap=True)

    def _record(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "schema": record.SCHEMA,
            "benchmark": plan.benchmark.name,
            "title": plan.benchmark.title,
            "profile": plan.profile_name,
            "profile_summary": plan.profile.summary,
            "benchmark_result": plan.profile.is_official,
            "machine": {**machine(), **self.gpus.facts},
            "options": {**_options(plan), **_used(self.loaded)},
            "tests": self._entries,
        }


def _options(plan: Plan) -> dict[str, Any]:
    """What was measured, as the command line has it; settings of the tests stand with the tests."""
    asked = plan.request
    files = {"user_conf": asked.overrides.user_conf, "audit_conf": asked.overrides.audit_conf}
    return {
        "backend": plan.backend_name,
        "device": plan.device,
        "dtype": plan.dtype,
        "batch": plan.batch,
        "max_wait_ms": asked.max_wait_ms,
        **({} if asked.max_cost is None else {"max_cost": asked.max_cost}),
        "threads": asked.threads,
        "workers": str(asked.workers),
        "rules": asked.overrides.round,
        **{name: str(file) for name, file in files.items() if file},
    }


def _used(loaded: Sequence[Loaded]) -> dict[str, str]:
    """What the workers say that they use, each thing once."""
    versions = {f"{name} version": version for one in loaded for name, version in one.versions.items()}
    return {
        "device used": ", ".join(dict.fromkeys(one.device for one in loaded)),
        "dtype used": ", ".join(dict.fromkeys(one.dtype for one in loaded)),
        **versions,
    }
