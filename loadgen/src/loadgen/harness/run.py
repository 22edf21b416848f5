"""The `run` and `accuracy` commands: prepare files, load the model once, run every test, score, report."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from loadgen.contracts import Backend, Dataset, InputError, Loaded, Measures
from loadgen.harness.machine import telemetry
from loadgen.harness.plan import Layered, Plan, installed
from loadgen.harness.report import columns, screen
from loadgen.harness.report.collect import Report
from loadgen.harness.scoring import find_log, open_dataset, score_log, text
from loadgen.harness.workers import Opened, opened
from loadgen.logs import LogSettings
from loadgen.rules import Accuracy
from loadgen.run import run
from loadgen.settings import Mode


def execute(plan: Plan, gpus: telemetry.Gpus | None = None) -> int:
    """Run what was asked and print it. Returns the exit code. gpus: those to watch; None: all that there are."""
    out = screen.console(plan.request.quiet)
    output = output_folder(plan)
    out.print(
        f"{plan.benchmark.title}: profile {plan.profile_name} ({plan.profile.summary}), backend {plan.backend_name}"
    )
    dataset = open_dataset(plan)
    gpus = telemetry.find_gpus()[0] if gpus is None else gpus
    report = Report(plan, output, gpus)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(gpus))
            workers = load_workers(plan, stack, out)
            report.loaded = workers.loaded
            out.print(f"{dataset.total_count:,} samples")
            for layers in plan.tests:
                _one_test(plan, report, dataset, workers.backends, layers, out)
                if report.results[-1].interrupted:
                    break
    finally:
        report.finish(out)
    return report.exit_code


def load_workers(plan: Plan, stack: contextlib.ExitStack, out: Console) -> Opened[Any, Any]:
    """Each worker's backend with its model; closed when `stack` is."""
    began = time.monotonic()
    spec = plan.backend
    found = partial(plan.imported, spec.name, f"backend {plan.backend_name}", spec.extra)
    install = installed(plan.benchmark, spec.extra)
    workers: Opened[Any, Any] = stack.enter_context(
        opened(plan.request.workers, spec.name, plan.options, found, install)
    )
    out.print(f"model loaded in {time.monotonic() - began:.1f} s on {_places(workers.loaded)}", markup=False)
    return workers


def _places(loaded: Sequence[Loaded]) -> str:
    """`cpu in float32`, of each worker once."""
    return ", ".join(dict.fromkeys(f"{one.device} in {one.dtype}" for one in loaded))


def output_folder(plan: Plan) -> Path:
    """A new folder for the results. Raises InputError if it cannot be written."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = plan.request.output or Path("results") / plan.benchmark.name / stamp
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"the output folder {folder.absolute()} cannot be written as user {os.getuid()} ({error.strerror}): "
            "choose another with --output"
        ) from error
    return folder


def _one_test(
    plan: Plan,
    report: Report,
    dataset: Dataset[Any],
    backends: Sequence[Backend[Any, Any]],
    layers: Layered,
    out: Console,
) -> None:
    scenario, mode = layers.settings.scenario, layers.settings.mode
    kind = "accuracy" if mode is Mode.AccuracyOnly else "performance"
    folder = report.output / scenario.name / kind
    log = LogSettings(outdir=folder, enable_trace=plan.request.trace)
    encode = plan.imported(plan.benchmark.postprocess, "the postprocessing").encode
    build = plan.imported(plan.benchmark.system, "the system")
    system = build(plan.benchmark.name, backends, dataset, encode, plan.batching)
    began = time.monotonic()
    with screen.watching(f"{scenario.name} {kind}", out) as progress:
        watched = report.gpus if mode is Mode.PerformanceOnly else telemetry.Gpus()
        with telemetry.Sampling(watched, folder):
            result = run(system, dataset, layers.settings, log=log, progress=progress)
    if isinstance(system, Measures):
        result = replace(result, metrics={**result.metrics, **system.measured()})
    if mode is not Mode.AccuracyOnly and result.columns is not None:
        columns.save(folder, result.columns)
    judged: tuple[Accuracy, ...] = ()
    if mode is Mode.AccuracyOnly and result.valid:
        judged = score_log(plan, dataset, log.path("accuracy.json"))
    row = report.add(result, judged, time.monotonic() - began, folder, layers)
    out.print(f"{row.scenario} {row.mode}: {row.measured}  {row.verdict}  ({row.seconds:.1f} s)", markup=False)


def score_existing(plan: Plan, log: Path) -> int:
    """The `accuracy` command: score a log that an earlier run wrote."""
    file = find_log(log)
    judged = score_log(plan, open_dataset(plan), file)
    screen.console(plan.request.quiet).print(text(judged))
    return int(not judged[0].met)
